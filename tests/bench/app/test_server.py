"""The app is started, asked and stopped as a user would."""

import sys

import pytest

from bench.app.server import StartError, measure_app
from core.scan import to_png
from demo.phantom import draw_phantom


@pytest.mark.slow
def test_the_app_shows_its_page_and_reads_scans():
    files = [to_png(draw_phantom(seed, tumour=True)) for seed in range(2)]
    figures = measure_app(files, ("-m", "tests.demo.browser.serve"))
    assert figures["reads"] == 2
    assert 0 < figures["first_page_s"] < 120
    if sys.platform.startswith("linux"):
        assert 50 < figures["peak_idle_mb"] <= figures["peak_reading_mb"] < 8000


def test_an_app_that_ends_is_told_with_its_last_words():
    with pytest.raises(StartError, match="ended with code 3: no weights"):
        measure_app([], ("-c", "import sys; print('no weights'); sys.exit(3)"))
