"""The redactor: a secret is taken out of whatever is shown, from the moment it is known."""

import pytest

from identity_pipeline.core.redaction import Redactor


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://user:p%40ss-word@host/db",
        "host=h password=p@ss-word user=u",
        "host=h user=u password = 'p@ss-word'",
        "Server=h;PASSWORD=p@ss-word;Uid=u",
        "p@ss-word",
    ],
)
def test_the_password_inside_a_connection_string_is_redacted_too(secret: str):
    text = Redactor(secret).redact(f"cannot reach {secret} with p@ss-word or p%40ss-word\x1b[2J")
    assert "p@ss-word" not in text
    assert "\x1b" not in text


def test_a_secret_that_is_learned_later_is_redacted_from_then_on():
    redactor = Redactor()
    assert redactor.redact("Bearer abc-123") == "Bearer abc-123"
    redactor.learn("abc-123")
    assert redactor.redact("Bearer abc-123") == "Bearer ***"
    assert "abc-123" not in repr(redactor)


def test_the_query_of_an_address_is_redacted_and_the_address_is_not():
    redactor = Redactor()
    redactor.learn_query("https://files.example.org/people.csv?sig=abc-123#top")
    assert redactor.redact("GET https://files.example.org/people.csv?sig=abc-123") == "GET https://files.example.org/people.csv?***"


@pytest.mark.parametrize("line_break", ["\n", "\\n"])
def test_a_line_of_a_private_key_is_redacted_by_itself(line_break: str):
    line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
    key = line_break.join(("-----BEGIN PRIVATE KEY-----", line, "c2hvcnQ=", "-----END PRIVATE KEY-----"))
    assert Redactor(f'{{"private_key": "{key}"}}').redact(f"line 2: {line}") == "line 2: ***"


def test_a_text_of_three_characters_is_no_secret():
    assert Redactor("abc").redact("abc") == "abc"
