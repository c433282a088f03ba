"""Tables give patients, sequences, planes and masks; a damaged one is named in a sentence."""

from __future__ import annotations

from collections import Counter

import pytest

from train.data.errors import DataError
from train.data.source_tables import COLLECTION, COLUMNS, IXI, TCGA, Line, read_table
from train.data.sources import ALL_SOURCES, find_records

TABLES = {
    COLLECTION: "file,patient,figshare_id,mask,mirrored\n"
    "brain-tumor-mri/glioma/0.png,MR1,7,masks/7.png,1\n",
    TCGA: "file,sequence,patient,site,slice,tumour,mask,head_pixels\n"
    "tcga-lgg/post/b.jpg,post,CS_1,CS,4,1,tcga-lgg/mask/b.png,900\n"
    "tcga-lgg/flair/a.jpg,flair,CS_1,CS,2,0,,800\n",
    IXI: "file,sequence,patient,plane,slice,tumour\nixi/c.png,t1,IXI1,sagittal,40,0\n",
}
# of each table, the facts of its lines
LINES = {
    COLLECTION: [Line("brain-tumor-mri/glioma/0.png", "MR1", "", "", None, "masks/7.png", True)],
    TCGA: [
        Line("tcga-lgg/post/b.jpg", "CS_1", "post", "axial", True, "tcga-lgg/mask/b.png", False),
        Line("tcga-lgg/flair/a.jpg", "CS_1", "flair", "axial", False, "", False),
    ],
    IXI: [Line("ixi/c.png", "IXI1", "t1", "sagittal", False, "", False)],
}


@pytest.fixture
def tables(tmp_path):
    for source, text in TABLES.items():
        (tmp_path / f"{source}.csv").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("source", TABLES)
def test_a_table_s_lines_keep_their_order_and_facts(tables, source):
    assert read_table(tables, source) == LINES[source]


def test_records_of_tables_take_label_kind_and_patient_from_them(tables):
    found = [
        (r.file, r.label, r.subtype, r.patient, r.sequence, r.plane)
        for r in find_records(tables, [TCGA, IXI])
    ]
    assert found == [
        ("ixi/c.png", 0, "no tumour", "IXI1", "t1", "sagittal"),
        ("tcga-lgg/flair/a.jpg", 0, "no tumour", "CS_1", "flair", "axial"),
        ("tcga-lgg/post/b.jpg", 1, "glioma", "CS_1", "post", "axial"),
    ]


def test_the_collection_s_patients_are_known_where_its_table_lists_them(brain_folder):
    root = brain_folder(2)
    assert {r.patient for r in find_records(root, [COLLECTION])} == {""}
    (root / f"{COLLECTION}.csv").write_text(TABLES[COLLECTION], encoding="utf-8")
    patients = {r.file: r.patient for r in find_records(root, [COLLECTION])}
    assert patients.pop("brain-tumor-mri/glioma/0.png") == "MR1"
    assert set(patients.values()) == {""} and len(patients) == 7


@pytest.mark.parametrize("source", TABLES)
def test_a_missing_table_is_named(tmp_path, source):
    with pytest.raises(DataError, match=rf"no table .*{source}.csv, which source '{source}' needs"):
        read_table(tmp_path, source)


@pytest.mark.parametrize("source", TABLES)
@pytest.mark.parametrize("change", ["more,file", "", "fil"])
def test_other_columns_are_refused(tables, source, change):
    text = TABLES[source].replace("file", change, 1)
    (tables / f"{source}.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{source}.csv must have the columns file, .*, \w+$"):
        read_table(tables, source)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("ixi/c.png,t1,IXI1,sagittal,40", "line 2 of .* does not have 6 columns"),
        ("ixi/c.png,t1,IXI1,sagittal,40,0,9", "line 2 of .* does not have 6 columns"),
        ("ixi/c.png,t1,IXI1,axial,4,0\nixi/d.png,t1,IXI1,axial,5,yes", "line 3 .* must be 0 or 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tables, lines, message):
    (tables / f"{IXI}.csv").write_text(f"{','.join(COLUMNS[IXI])}\n{lines}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_table(tables, IXI)


@pytest.mark.parametrize("source", TABLES)
def test_a_table_in_another_encoding_is_named(tables, source):
    with (tables / f"{source}.csv").open("ab") as file:
        file.write("Müller".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{source}.csv is no CSV table in UTF-8"):
        read_table(tables, source)


@pytest.mark.data
def test_the_real_tables_are_complete(data_root):
    records = find_records(data_root, ALL_SOURCES)
    counts = Counter((r.source, r.label) for r in records if r.source in (TCGA, IXI))
    assert counts == {(TCGA, 1): 1998, (TCGA, 0): 1517, (IXI, 0): 2358}
    known = Counter(r.source for r in records if r.patient)
    assert known == {COLLECTION: 3823, TCGA: 3515, IXI: 2358}
    patients = Counter(
        source for source, patient in {(r.source, r.patient) for r in records} if patient
    )
    assert patients == {COLLECTION: 207, TCGA: 78, IXI: 131}
