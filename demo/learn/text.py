"""The lesson's words: what each step is about, what to do, what to look for."""

from __future__ import annotations

# (label of the step, its text as HTML)
TEXTS = (
    (
        "1 The model's eye",
        "<h2>What does the model see?</h2>"
        "<p>To a computer a scan is a table of numbers. A classifier turns these numbers into one "
        "probability. In this system three experts look at the same scan at three sizes: fine "
        "detail, shape, and the rough layout.</p>"
        "<p><b>Try it.</b> Choose a synthetic scan. It was drawn by a program and belongs to "
        "nobody.</p>",
    ),
    (
        "2 The attack",
        "<h2>How is it fooled?</h2>"
        "<p>An attacker who knows a classifier can ask it: which way must each pixel change so "
        "that you get more wrong? Then every pixel takes a tiny step that way, seven times. This "
        "is called projected gradient descent (PGD). The victim is a plain classifier without any "
        "defence.</p>"
        "<p><b>Try it.</b> Attack the scan, then move the step slider back and forth. Can you see "
        "the change? Try 1 level, and 0: the control.</p>",
    ),
    (
        "3 The detector",
        "<h2>Can the attack be noticed?</h2>"
        "<p>A masked autoencoder predicts every part of a scan from the rest. What it gets wrong "
        "is the error map. The paper's score is its mean. This system adds other signs, above all "
        "the fine pattern that an attack on a classifier it knows leaves behind, and compares the "
        "score with a threshold. An attacker who knows the detector can avoid that pattern.</p>"
        "<p><b>Look for.</b> Do the two error maps differ? Do the two scores?</p>",
    ),
    (
        "4 The purifier",
        "<h2>Can it be undone?</h2>"
        "<p>Noise is added until it drowns the attack, and a diffusion model takes the noise away "
        "again: with it goes much of the attack, and some fine detail. The depth t* says how much "
        "noise. The system chooses it by the detector's score.</p>"
        "<p><b>Try it.</b> Purify at 0, 50, 100 and 200. When does the plain classifier recover? "
        "What is lost from the picture?</p>",
    ),
    (
        "5 The mixture",
        "<h2>Who decides?</h2>"
        "<p>Three experts vote on the purified scan, and an attention network decides how much "
        "each vote counts for this scan. They were trained on attacked scans, which makes them "
        "harder to fool than the plain classifier. Grad-CAM hints at what spoke for the output.</p>"
        "<p><b>Look for.</b> Do the experts agree? Do they look where you would look? Compare the "
        "outputs with and without defence.</p>",
    ),
)
QUIZ = (
    "Quiz",
    "<h2>Which of the two was attacked?</h2>"
    "<p>You get the same scan twice: as it was drawn, and attacked. The attacker changes pixels "
    "by one of 255 levels, or by as many more as the plain classifier needs to change its mind. "
    "Six rounds tell whether your eyes do better than guessing.</p>",
)
