"""XML of strangers: no entities, no network, bounded depth."""

from typing import Any


def parse_xml(raw: bytes) -> Any:
    """Parse XML and return its root element.

    Raises:
        lxml.etree.XMLSyntaxError: it is not well-formed.
    """
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    return etree.fromstring(raw, parser)
