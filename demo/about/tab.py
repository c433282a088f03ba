"""The tab About: method, results, limits, model card, citation, licences."""

from __future__ import annotations

import gradio as gr

from demo.about import results
from demo.about.figures import build_figures
from demo.about.svg import render_figure
from demo.rendering import wording

METHOD = """
<p>A classifier says whether an MRI slice shows a brain tumour. An adversarial attack changes the
slice so little that nobody sees it, and the answer flips. Here a mixture of experts answers. It was
trained on adversarial examples, by simulated hospitals that share no scans (federated learning).
A search says which answers a small change would flip. A detector flags unusual scans, and a
purifier shows them without their fine grain. The method is that of Karami et al.; this is an
independent implementation.</p>"""
DIFFERENCES = """
<h3>Departures from the paper</h3>
<ul>
<li>The detector's score combines up to eight features. The paper's score, the autoencoder's mean
reconstruction error, is one of them and is reported beside it.</li>
<li>The mixture reads the scan itself, and the purified scan is shown beside it: purifying does not
help against attackers who know it. In the paper it reads flagged scans purified (an option in
Explore).</li>
<li>An answer that a small change flips is called not stable.</li>
<li>The purifier's network is also trained on adversarial examples and removes the noise in one
step.</li>
<li>The experts see the scan at three resolutions; their operating point is calibrated on
validation scans.</li>
<li>The server adds momentum to the clients' mean, which is weighted by number of scans (FedAvgM).
The paper uses the mean alone (FedAvg, Eq. 23).</li>
</ul>"""
FURTHER_LIMITS = """
<h3>Further limits</h3>
<ul>
<li>No known patient is in both training and test scans. The patients of Br35H and of part of the
Brain Tumor MRI Dataset are not known: there only near-duplicates are kept apart.</li>
<li>The data are single slices of four public collections of uneven quality. Other scanners,
sequences, ages and diseases are not covered.</li>
<li>“Attack suspected” means that a scan is unusual for these collections. Image noise also raises
the score.</li>
<li>Robustness is measured against the attacks listed, not proven.</li>
<li>The purified picture is smoother than the scan; do not read anatomy from it.</li>
<li>Probabilities are calibrated on validation scans of the same collections and mean nothing
elsewhere. They are model outputs, not a diagnosis.</li>
<li>Nothing was trained or measured on a GPU.</li>
</ul>"""
CARD = """
<p>Trained on slices of Br35H, the Brain Tumor MRI Dataset, TCGA-LGG and IXI, split by patient, or
by groups of near-duplicates where no patient is known: a fifth for testing, a tenth for
validation. The others were divided by site among ten simulated hospitals, which trained every
network together and shared no scan. Each round the server averages the hospitals' networks,
weighted by number of scans, and adds server momentum (FedAvgM). Attention, the detector's
threshold, temperatures and operating points are each hospital's own, fitted on its own scans. Its
batch-norm statistics are for three quarters its own, for one quarter those of all hospitals
together. Hospital 7 (part of the Brain Tumor MRI Dataset) reads scans from elsewhere, with the
statistics of all; above, the figures of <b>patients</b> are its own. Shared weights are stored in
half precision, all as safetensors, never pickled; a file whose sha256 differs from the manifest
is refused.</p>"""
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
<li>TCGA-LGG: lower-grade glioma of The Cancer Genome Atlas; see The Cancer Imaging Archive for its
terms.</li>
<li>IXI: healthy adults, CC BY-SA 3.0.</li>
</ul>
<p>Check the terms of each source before you use the data or the weights for anything but research
and teaching.</p>"""


class AboutTab:
    """Tab with one column of text, figures and tables, whose numbers are read from files."""

    def __init__(self) -> None:
        gr.HTML(render_about(), elem_id="about")


def render_about() -> str:
    """Render the tab."""
    figures = (
        f"{results.render_robustness()}<p>{results.render_speed()} "
        "Accuracy is at the operating point "
        "chosen on validation scans; intervals are 95 % and resample patients, or groups of "
        "near-duplicates.</p>"
        f"{results.render_attack_suite()}{results.render_detection()}"
        f"<details><summary>Source of the figures</summary>"
        f"{results.render_provenance()}</details>"
    )
    drawings = "".join(render_figure(figure) for figure in build_figures())
    parts = (
        ("Method", f"{METHOD}{drawings}{DIFFERENCES}"),
        ("Results", figures),
        ("Limits", f"<p><b>{wording.NOTICE}</b></p>{results.render_main_limits()}{FURTHER_LIMITS}"),
        ("Model card", f"{CARD}{results.render_weights()}"),
        ("Citation", CITATION),
        ("Licences", LICENCES),
    )
    body = "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in parts)
    return f'<article class="mf-about">{body}</article>'
