"""Answers in XML, as object stores give them."""

from xml.etree import ElementTree as ET

from identity_pipeline.core.errors import ContractBroken


def parse(text: bytes) -> ET.Element:
    """The root element.

    Raises:
        ContractBroken: it is no XML, or declares a document type: no store does, and entities could grow without end.
    """
    if b"<!DOCTYPE" not in text:
        try:
            return ET.fromstring(text)  # noqa: S314 - without a document type there are no entities
        except ET.ParseError:
            pass
    raise ContractBroken("the answer is not XML as a store writes it: check endpoint_url")


def text_of(element: ET.Element, name: str) -> str:
    """The text of a child of that name, in whatever namespace; empty where there is none."""
    return (element.findtext(f"{{*}}{name}") or element.findtext(name) or "").strip()
