"""E-mail addresses: canonical forms, verdicts, and the quick path against the library."""

import random
import re

import pyarrow as pa
import pytest
from email_validator import validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.normalise import email
from identity_pipeline.normalise.cells import INVALID, PLACEHOLDER, ROLE, VALID, truth

ATOM = "abcz019_!#$%&'*+-/=?^`{|}~."
shapes = st.one_of(
    st.from_regex(re.compile(f"(?:{email._PLAIN})", re.ASCII), fullmatch=True),
    st.builds(lambda local, domain: f"{local}@{domain}", st.text(ATOM, max_size=70), st.text("abxn01-.", max_size=70)),
    st.builds(
        lambda local, labels: f"{local}@{'.'.join(labels)}",
        st.text(ATOM + "éİ", min_size=1, max_size=20),
        st.lists(
            st.sampled_from(["xn--a", "x", "ab--cd", "münchen", "test", "local", "com", "de", "-a", "a-", "1", "a" * 64, "arpa"]),
            max_size=6,
        ),
    ),
    st.emails(),
    st.text(max_size=40),
)

CORPUS = """
simple@x.com very.common@x.org
x@y.co long.email-address-with-hyphens@and.subdomains.acme.com user.name+tag+sorting@acme.com name/surname@acme.com admin@acme acme.com
a@b@c.com john..doe@acme.com .john@acme.com john.@acme.com user%acme.com@acme.org user-@acme.org a@-b.com a@b-.com
a@b..com a@.com a@com. i.like.underscores@but_they_are_not_allowed.com a@1.2.3.4 a@[1.2.3.4] "john@doe"@acme.com
"a b"@acme.com a@b.c a@b.cd
a@b.1 a@b.c1 a@b.c-d a@ab--cd.com a@xn--80ak6aa92e.com a@xn--zzz.com postbox@com.local me@x.onion me@x.arpa me@x.test me@x.invalid
üñîçøðé@acme.com ann@münchen.de ann@xn--mnchen-3ya.de 二ノ宮@黒川.日本 a@例え.テスト a@ex\u200bample.com bob\uff20acme.com
{64}@acme.com {65}@acme.com a@{63}.com a@{64}.com a@{63}.{63}.{63}.{63}.com İ@x.com ß@straße.de K@x.com a(b)@x.com
"""


def corpus() -> list[str]:
    return [re.sub(r"\{(\d+)\}", lambda m: "a" * int(m[1]), word) for word in CORPUS.split()]


def library(text: str) -> str | None:
    try:
        found = validate_email(text, check_deliverability=False)
    except ValueError:
        return None
    return f"{found.local_part.lower()}@{found.ascii_domain}"


def quick(texts: list[str]) -> list[bool]:
    return list(truth(email.plain(pa.array(texts, pa.string()))))


@settings(deadline=None, max_examples=60)
@given(st.lists(shapes, min_size=1, max_size=20))
def test_the_quick_path_accepts_only_what_the_library_accepts_unchanged(texts: list[str]):
    for text, sure in zip(texts, quick(texts), strict=True):
        if sure:
            assert library(text) == text


def test_the_quick_path_agrees_with_the_library_on_the_corpus():
    texts = corpus()
    sure = quick(texts)
    assert all(library(text) == text for text, s in zip(texts, sure, strict=True) if s)
    assert sum(sure) >= 8


def test_the_quick_path_agrees_with_the_library_on_many_near_misses():
    random.seed(5)
    letters = "ab0.-@_+'xn"
    texts = [
        "".join(random.choice(letters) for _ in range(random.randint(3, 12))) + random.choice(["", "@ab.co", ".com", "--a.de"])
        for _ in range(60_000)
    ]
    accepted = [text for text, sure in zip(texts, quick(texts), strict=True) if sure]
    assert len(accepted) > 500
    assert [text for text in accepted if library(text) != text] == []


@settings(deadline=None, max_examples=60)
@given(st.lists(shapes, min_size=1, max_size=20))
def test_both_paths_say_the_same(texts: list[str]):
    found = email.find(pa.array(texts, pa.string()))
    expected = [(row, *judged) for row, text in enumerate(texts) for judged in email.read(text)]
    assert list(zip(found.rows.tolist(), found.values.to_pylist(), found.verdicts.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_a_canonical_address_stays_itself(text: str):
    for value, verdict in email.read(text):
        if verdict == VALID:
            assert email.judge(value) == (value, VALID)


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        (" Bob.Smith@Acme.COM ", "bob.smith@acme.com"),
        ("Bob Smith <bob@acme.com>", "bob@acme.com"),
        ('"Smith, Bob" <Bob@acme.com>', "bob@acme.com"),
        ("mailto:bob@acme.com?subject=Hi", "bob@acme.com"),
        ("<mailto:bob@acme.com>", "bob@acme.com"),
        ("bob@acme.com.", "bob@acme.com"),
        ("bob@acme.com,", "bob@acme.com"),
        ("'bob@acme.com'", "bob@acme.com"),
        ("bob+news@acme.com", "bob+news@acme.com"),
        ("ann@MÜNCHEN.de", "ann@xn--mnchen-3ya.de"),
        ("Jo\u0308rg@acme.com", "jörg@acme.com"),
        ("\u202abob@acme.com\u202c", "bob@acme.com"),
        ("b\u200bob@acme.com\ufeff", "bob@acme.com"),
        ("bo\u200db@acme.com", "bob@acme.com"),
        ("\u00a0bob@acme.com\u3000", "bob@acme.com"),
    ],
)
def test_what_certainly_is_an_address_becomes_its_canonical_form(cell: str, address: str):
    assert email.read(cell) == ((address, VALID),)


@pytest.mark.parametrize(
    "cell",
    ["bob", "bob@", "@acme.com", "bob smith@acme.com", '"bob"@acme.com', "bob@[127.0.0.1]", "bob@acme", "bob@acme..com",
     "Kbob@acme com", "b@@acme.com",
     "call me", "bob@x.local", "bob\uff20acme.com", "a" * 5000 + "@acme.com"],
)  # fmt: skip
def test_what_is_not_certain_is_invalid(cell: str):
    assert email.read(cell) == ((None, INVALID),)


@pytest.mark.parametrize(
    "cell",
    ["test@test.com", "TEST@acme.com", "test123@gmail.com", "bob@example.com", "bob@mail.example.org", "none@none", "none@none.com",
     "no@email",
     "noreply@example.com", "noemail@noemail.com", "no.email@acme.com", "n/a", "N.A.", "-", "--", "none", "NULL", "unknown",
     "no email", "0", "000",
     "asdf@asdf.com", "a@a.com", "x@x.xx", "email@email.com", "firstname.lastname@acme.com", "user@domain.com", "bob@shop.test",
     "bob@acme.invalid",
     "your-email@acme.com", "Nobody <none@none.com>", "#REF!"],
)  # fmt: skip
def test_a_placeholder_is_no_identifier(cell: str):
    assert email.read(cell) == ((None, PLACEHOLDER),)


@pytest.mark.parametrize(
    "cell",
    ["info@acme.com", "Sales@acme.com", "support@acme.com", "noreply@acme.com", "no-reply@acme.com", "do_not_reply@acme.com",
     "info+de@acme.com",
     "kontakt@müller.de", "customer.service@acme.com", "hr@acme.com", "Acme <office@acme.com>"],
)  # fmt: skip
def test_a_role_address_is_no_identifier(cell: str):
    assert email.read(cell) == ((None, ROLE),)


@pytest.mark.parametrize(
    "address",
    ["infante@acme.com", "salesman@acme.com", "testa@acme.com", "mail@janedoe.com", "me@janedoe.com", "anna@testing-labs.com",
     "bob@latest.com",
     "na@acme.com", "contessa@acme.com", "smith@smith.com", "hrvoje@acme.com", "noah@acme.com", "bob@none-such.com",
     "nonell@acme.com", "admiral@acme.com"],
)  # fmt: skip
def test_a_person_whose_address_begins_like_a_role_or_placeholder_is_kept(address: str):
    assert email.read(address) == ((address, VALID),)


@pytest.mark.parametrize(
    ("cell", "addresses"),
    [
        ("a@acme.com; b@acme.com", ["a@acme.com", "b@acme.com"]),
        ("b@acme.com,a@acme.com", ["b@acme.com", "a@acme.com"]),
        ("a@acme.com b@acme.com", ["a@acme.com", "b@acme.com"]),
        ("a@acme.com\nb@acme.com", ["a@acme.com", "b@acme.com"]),
        ('["a@acme.com", "b@acme.com"]', ["a@acme.com", "b@acme.com"]),
        ('[{"value":"a@acme.com","primary":false},{"value":"b@acme.com","primary":true}]', ["b@acme.com", "a@acme.com"]),
        ('[{"address":"a@acme.com","name":"A"}]', ["a@acme.com"]),
        ('[{"metadata":{"primary":true},"value":"a@acme.com"},null,7]', ["a@acme.com"]),
        ("[]", []),
        ("  ", []),
        ("\u200b", []),
        ("a@acme.com; not an address", ["a@acme.com"]),
    ],
)
def test_a_cell_may_hold_several(cell: str, addresses: list[str]):
    assert [value for value, verdict in email.read(cell) if verdict == VALID] == addresses


def test_capitals_beyond_ascii_do_not_slip_through_the_quick_path():
    """The Kelvin sign and the dotted capital I have ASCII small letters in some tables."""
    found = email.find(pa.array(["bob\u212a@acme.com", "\u0130nge@acme.com"], pa.string()))
    assert found.values.to_pylist() == ["bobk@acme.com", "i\u0307nge@acme.com"]


@pytest.mark.parametrize(
    "address", ["null+ann@lee.net", "ann+null@lee.net", "nullmann@lee.net", "christopher.null@lee.net", "o'null@lee.net", "ann@null-lee.de"]
)
def test_an_address_that_only_contains_null_is_a_persons(address: str):
    assert email.judge(address) == (address, VALID)
    assert email.find(pa.array([address] * 3)).values.to_pylist() == [address] * 3


@pytest.mark.parametrize("address", ["null@lee.net", "none@lee.net", "test+ann@lee.net", "test@lee.net", "ann@null.com"])
def test_an_address_that_is_null_is_a_placeholder(address: str):
    assert email.judge(address) == (None, PLACEHOLDER)


def test_googles_separator_parts_addresses():
    assert [value for value, _ in email.read("a@lee.net ::: b@lee.net")] == ["a@lee.net", "b@lee.net"]
