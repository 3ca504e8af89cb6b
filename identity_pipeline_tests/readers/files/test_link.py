"""Links: whatever page of a file a person copies, the file is read."""

import pytest

from identity_pipeline.readers.files.link import file_address

SHEET = "https://docs.google.com/spreadsheets/d/aB-1/export?format=csv"
DRIVE = "https://drive.google.com/uc?export=download&id=aB-1"
SHARE = "https://cloud.acme.org/index.php/s/aBcDeFgHiJkLmNo"
CASES = [
    ("https://docs.google.com/spreadsheets/d/aB-1/edit#gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/d/aB-1/edit?usp=sharing", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/edit?gid=7#gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/d/aB-1/edit?gid=7&usp=sharing#gid=7&range=A1", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/d/aB-1/edit?usp=drive_link&ouid=1&rtpof=true&sd=true", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/view", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/htmlview#gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/d/aB-1/preview", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/copy", SHEET),
    ("https://docs.google.com/spreadsheets/d/aB-1/export?format=xlsx&gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/u/0/d/aB-1/edit#gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/a/acme.org/spreadsheets/d/aB-1/edit#gid=7", SHEET + "&gid=7"),
    ("https://docs.google.com/spreadsheets/d/aB-1/edit?resourcekey=0-x", SHEET + "&resourcekey=0-x"),
    ("https://docs.google.com/spreadsheets/d/aB-1/gviz/tq?tqx=out:csv", "https://docs.google.com/spreadsheets/d/aB-1/gviz/tq?tqx=out:csv"),
    ("https://docs.google.com/spreadsheets/d/e/2PACX-1/pubhtml", "https://docs.google.com/spreadsheets/d/e/2PACX-1/pub?output=csv"),
    (
        "https://docs.google.com/spreadsheets/d/e/2PACX-1/pubhtml?gid=7&single=true",
        "https://docs.google.com/spreadsheets/d/e/2PACX-1/pub?output=csv&gid=7&single=true",
    ),
    ("https://docs.google.com/spreadsheets/d/e/2PACX-1/pub?output=csv", "https://docs.google.com/spreadsheets/d/e/2PACX-1/pub?output=csv"),
    ("https://drive.google.com/file/d/aB-1/view?usp=sharing", DRIVE),
    ("https://drive.google.com/file/d/aB-1/view?usp=drive_link", DRIVE),
    ("https://drive.google.com/file/d/aB-1", DRIVE),
    ("https://drive.google.com/file/d/aB-1/preview", DRIVE),
    ("https://drive.google.com/file/u/0/d/aB-1/view", DRIVE),
    ("https://drive.google.com/a/acme.org/file/d/aB-1/view", DRIVE),
    ("https://drive.google.com/open?id=aB-1", DRIVE),
    ("https://drive.google.com/open?id=aB-1&usp=drive_copy", DRIVE),
    ("https://drive.google.com/uc?id=aB-1", DRIVE),
    ("https://drive.google.com/u/0/uc?id=aB-1&export=download", DRIVE),
    ("https://drive.google.com/file/d/aB-1/view?resourcekey=0-x", DRIVE + "&resourcekey=0-x"),
    ("https://drive.usercontent.google.com/download?id=aB-1", "https://drive.usercontent.google.com/download?id=aB-1"),
    ("https://storage.cloud.google.com/b/f.csv?authuser=0", "https://storage.googleapis.com/b/f.csv"),
    (
        "https://console.cloud.google.com/storage/browser/_details/b/f.csv;tab=live_object?project=p",
        "https://storage.googleapis.com/b/f.csv",
    ),
    ("https://www.dropbox.com/s/x/f.csv?dl=0", "https://www.dropbox.com/s/x/f.csv?dl=1"),
    ("https://www.dropbox.com/s/x/f.csv", "https://www.dropbox.com/s/x/f.csv?dl=1"),
    ("https://www.dropbox.com/s/x/f.csv?raw=1", "https://www.dropbox.com/s/x/f.csv?dl=1"),
    ("https://dropbox.com/scl/fi/x/f.csv?rlkey=k&dl=0", "https://dropbox.com/scl/fi/x/f.csv?rlkey=k&dl=1"),
    ("https://www.dropbox.com/scl/fi/x/f.csv?rlkey=k&st=abc&dl=0", "https://www.dropbox.com/scl/fi/x/f.csv?rlkey=k&st=abc&dl=1"),
    ("https://www.dropbox.com/scl/fi/x/f.csv?rlkey=k&e=1", "https://www.dropbox.com/scl/fi/x/f.csv?rlkey=k&e=1&dl=1"),
    ("https://app.box.com/s/abcdefghijklmnop0123", "https://app.box.com/shared/static/abcdefghijklmnop0123.csv"),
    ("https://acme.sharepoint.com/:x:/s/team/Eabc?e=1Bc", "https://acme.sharepoint.com/:x:/s/team/Eabc?e=1Bc&download=1"),
    (
        "https://acme-my.sharepoint.com/:x:/g/personal/ann/Eabc?e=1&web=1",
        "https://acme-my.sharepoint.com/:x:/g/personal/ann/Eabc?e=1&download=1",
    ),
    ("https://onedrive.live.com/embed?resid=A%211&authkey=!b", "https://onedrive.live.com/download?resid=A!1&authkey=!b"),
    ("https://onedrive.live.com/edit.aspx?resid=A1", "https://onedrive.live.com/download?resid=A1"),
    (SHARE, SHARE + "/download"),
    (SHARE + "/", SHARE + "/download"),
    (SHARE + "/download", SHARE + "/download"),
    ("https://github.com/o/r/blob/main/a/f.csv", "https://raw.githubusercontent.com/o/r/main/a/f.csv"),
    ("https://github.com/o/r/blob/main/a/f.csv?plain=1#L1-L9", "https://raw.githubusercontent.com/o/r/main/a/f.csv"),
    ("https://github.com/o/r/blame/main/f.csv", "https://raw.githubusercontent.com/o/r/main/f.csv"),
    ("https://github.com/o/r/raw/main/f.csv", "https://github.com/o/r/raw/main/f.csv"),
    ("https://gist.github.com/ann/0123456789abcdef0123#file-f-csv", "https://gist.githubusercontent.com/ann/0123456789abcdef0123/raw"),
    ("https://gitlab.com/g/s/p/-/blob/main/f.csv?ref_type=heads", "https://gitlab.com/g/s/p/-/raw/main/f.csv"),
    ("https://bitbucket.org/w/r/src/main/f.csv", "https://bitbucket.org/w/r/raw/main/f.csv"),
    ("https://codeberg.org/o/r/src/branch/main/f.csv", "https://codeberg.org/o/r/raw/branch/main/f.csv"),
    ("https://huggingface.co/datasets/o/d/blob/main/f.csv", "https://huggingface.co/datasets/o/d/resolve/main/f.csv"),
    ("https://zenodo.org/records/12/preview/f.csv?include_deleted=0", "https://zenodo.org/records/12/files/f.csv?download=1"),
    ("https://pastebin.com/aBcDeF12", "https://pastebin.com/raw/aBcDeF12"),
    ("https://s3.console.aws.amazon.com/s3/object/b?region=eu-west-1&prefix=a/f.csv", "https://b.s3.eu-west-1.amazonaws.com/a/f.csv"),
]
OTHERS = [
    "https://docs.google.com.evil.com/spreadsheets/d/a/edit",
    "https://example.com/f.csv?dl=0",
    "https://example.com/f.csv?sig=a%2Fb%3D&x=",
    "https://example.com/s/short",
    "https://drive.google.com/drive/folders/aB-1",
    "https://raw.githubusercontent.com/o/r/main/f.csv?token=A",
    "https://github.com/o/r",
    "http://127.0.0.1:80/a.csv",
]


@pytest.mark.parametrize(("page", "file"), CASES)
def test_the_page_of_a_file_leads_to_the_file(page: str, file: str) -> None:
    assert file_address(page) == file
    assert file_address(file) == file, "the file's own address stays"


@pytest.mark.parametrize("url", OTHERS)
def test_another_address_stays_as_it_is(url: str) -> None:
    assert file_address(url) == url
