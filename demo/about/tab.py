"""The tab About: the method, what it reaches, its limits, its weights, whom to cite."""

from __future__ import annotations

import gradio as gr

from demo.about import results
from demo.about.method_figure import draw_method_figure
from demo.rendering import wording

METHOD = """
<p>A brain-tumour classifier reads an MRI slice. An attacker changes the slice so little that
nobody sees it, and the answer flips. MedFedPure puts a detector and a purifier in front of a
mixture of experts that was itself trained on attacked scans, by hospitals that keep their scans.
The method is that of Karami et al.;
this is an independent implementation.</p>"""
DIFFERENCES = """
<h3>Where it departs from the paper</h3>
<ul>
<li>The score that decides fuses up to eight measurements. The paper's score, the mean
reconstruction error, is computed and reported beside it.</li>
<li>Every scan is purified a little, suspected ones more, so that slipping past the detector does
not switch the defence off.</li>
<li>The purifier's network is trained on attacked scans as well, and removes the noise in one
step.</li>
<li>The experts look at the scan at three sizes, and their operating point is calibrated on
validation scans.</li>
</ul>"""
LIMITS = """
<ul>
<li>Single slices of two public collections of uneven quality. Other scanners, sequences, ages and
diseases are outside what it was made for.</li>
<li>“Attack suspected” says that a scan is unusual for these collections. Grain raises the score
too, and so do most scans of a source that was not trained on.</li>
<li>Robustness is measured against the attacks listed, not proven. An attacker who knows the
defence does better, and mostly raises no alarm.</li>
<li>The purified picture is for the classifier. It is smoother than the scan, and nobody should
read anatomy from it. Grad-CAM hints at what the model used, not at where a disease is: no more of
it lies in tumours than chance would put there.</li>
<li>A probability is calibrated on validation scans of the same collections and means nothing
elsewhere. It is a model output, no finding.</li>
<li>No patient identifiers exist in the data: splits are free of near-duplicates, but cannot be
proven free of shared patients.</li>
</ul>"""
CARD = """
<p>Trained on Br35H and the Brain Tumor MRI Dataset: 8,812 slices, split by groups of
near-duplicates over both, 20 % of the groups for testing and 10 % for validation. The others were
dealt to ten simulated hospitals, which trained every network together and shared no scan: networks
travelled and were averaged. Attention, statistics of normalisation, the detector's threshold,
temperatures and operating points are each hospital's own, fitted on its own scans. The tables above
are of hospital 1. Weights are stored in half precision as safetensors, never pickled; a file whose
sha256 is not the manifest's is refused.</p>"""
CITATION = """
<p>Please cite the paper for the method: M. Karami, M. R. Nemati, A. Kazemi, A. Mikaeili Barzili,
H. Azadegan, B. Moshiri: <cite>MedFedPure: A Medical Federated Framework with MAE-based Detection
and Diffusion Purification for Inference-Time Attacks</cite>. For the software see
<code>CITATION.cff</code>.</p>
<p>Grad-CAM: R. R. Selvaraju et al., ICCV 2017. Projected gradient descent: A. Madry et al., ICLR
2018. Colour map: J. R. Nuñez, C. R. Anderton, R. S. Renslow, PLoS ONE 2018.</p>"""
LICENCES = """
<ul>
<li>Code: Apache License 2.0. No picture of any data set is in the project; the example scans are
synthetic.</li>
<li>Br35H :: Brain Tumor Detection 2020, Ahmed Hamada, on Kaggle: images belong to their authors;
see the page there for its terms.</li>
<li>Brain Tumor MRI Dataset, Masoud Nickparvar, on Kaggle: a collection of figshare (Jun Cheng,
2017, <cite>brain tumor dataset</cite>, 1512427), SARTAJ and Br35H; see the pages there for their
terms.</li>
</ul>
<p>Check the terms of each source before you use the data or the weights for anything but research
and teaching.</p>"""


class About:
    """One column of text, figure and tables; the numbers are read from files when it is built."""

    def __init__(self) -> None:
        gr.HTML(render_about(), elem_id="about")


def render_about() -> str:
    """The whole tab as HTML."""
    figures = (
        f"{results.render_robustness()}<p>{results.render_speed()} "
        f"Accuracy at the operating point chosen on "
        f"validation scans; intervals resample groups of near-duplicates.</p>"
        f"{results.render_attack_suite()}{results.render_detection()}"
        f"<details><summary>Where these figures come from</summary>"
        f"{results.render_provenance()}</details>"
    )
    parts = (
        ("Method", f"{METHOD}{draw_method_figure()}{DIFFERENCES}"),
        ("Results", figures),
        ("Limits", f"<p><b>{wording.NOTICE}</b></p>{LIMITS}"),
        ("Model card", f"{CARD}{results.render_weights()}"),
        ("Citation", CITATION),
        ("Licences", LICENCES),
    )
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in parts)
    return f'<article class="mf-about">{body}</article>'
