"""Text of the lesson's steps and of the quiz."""

from __future__ import annotations

# (label, HTML) of each step
TEXTS = (
    (
        "1 The classifier",
        "<h2>What does the model see?</h2>"
        "<p>To a computer a scan is a table of numbers. A classifier turns them into one "
        "probability. In this system three experts see the same scan at three resolutions: fine "
        "detail, shape, and rough layout.</p>"
        "<p><b>Try it.</b> Choose a synthetic scan. It was drawn by a program and shows no real "
        "patient.</p>",
    ),
    (
        "2 The attack",
        "<h2>How is it fooled?</h2>"
        "<p>An attacker who knows the classifier can compute in which direction each pixel must "
        "change to make the answer more wrong. Every pixel takes a tiny step in that direction, "
        "seven times. This is projected gradient descent (PGD), and its result is an adversarial "
        "example. The attacked model is a plain classifier without any defence.</p>"
        "<p><b>Try it.</b> Attack the scan, then move the step slider back and forth. Can you see "
        "the change? Also try 1 level, and 0 levels as the control.</p>",
    ),
    (
        "3 The detector",
        "<h2>Can the attack be detected?</h2>"
        "<p>A masked autoencoder predicts every part of a scan from the rest. The error map shows "
        "where it is wrong. The paper's score is the mean error. This system adds other features, "
        "above all the fine pattern that an attack on its classifiers leaves behind, and compares "
        "the score with a threshold. An attacker who knows the detector can avoid that "
        "pattern.</p>"
        "<p><b>Look for.</b> Do the two error maps differ? Do the two scores?</p>",
    ),
    (
        "4 The purifier",
        "<h2>Can the attack be removed?</h2>"
        "<p>Noise is added until it covers the attack, then a diffusion model removes the noise, "
        "and with it much of the attack and some fine detail. The depth t* sets the amount of "
        "noise; in the paper it grows with the detector's score. An attacker who knows the "
        "purifier gets past it. So here the purified scan is a picture to look at, and the mixture "
        "of the next step reads the scan as it came.</p>"
        "<p><b>Try it.</b> Purify at 0, 50, 100 and 200. When does the plain classifier recover? "
        "What is lost from the picture?</p>",
    ),
    (
        "5 The mixture",
        "<h2>Who decides?</h2>"
        "<p>Three experts vote on the scan, and an attention network weights the votes. "
        "The experts were trained on adversarial examples, which makes them harder to fool than "
        "the plain classifier. Each vote is a share of the output; the shares add up.</p>"
        "<p><b>Look for.</b> Do the experts agree? Compare the outputs with and without "
        "defence.</p>",
    ),
    (
        "6 Heat maps",
        "<h2>Why can a heat map mislead?</h2>"
        "<p>Grad-CAM is computed after the answer, from gradients in the last layer of each "
        "expert: 4 to 7 cells a side, drawn as a smooth cloud. It shows what would have moved the "
        "answer, and it always looks plausible, also beside the tumour. A tumour map is a part of "
        "the computation: each expert's answer is pooled from its cells, and what the scan as a "
        "whole adds is bounded. Explore says how much came from each.</p>"
        "<p><b>Look for.</b> Does the brightest place lie in the tumour that was drawn? And how "
        "often did it in real scans?</p>",
    ),
    (
        "7 What would it take?",
        "<h2>What would turn the answer?</h2>"
        "<p>The attack may now change the scan visibly, but only smoothly, until the answer turns. "
        "A classifier trained on attacks ignores fine patterns: something like a tumour has "
        "to be drawn, or erased. The plain classifier turns on patterns that mean nothing to "
        "people. Being hard to fool and giving reasons that people can see belong together.</p>"
        "<p><b>Look for.</b> In which of the two changed scans can you see why the answer turned? "
        "Also try a scan without a tumour.</p>",
    ),
)
QUIZ = (
    "Quiz",
    "<h2>Which of the two was attacked?</h2>"
    "<p>You see the same scan twice: as it was drawn, and attacked. The attack changes each pixel "
    "by at most 1 of 255 levels, or by up to 4 if the plain classifier's answer does not flip "
    "before. Do your eyes do better than guessing after six rounds?</p>",
)
