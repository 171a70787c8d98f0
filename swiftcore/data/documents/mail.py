"""Reader of EML: headers, the text or else the HTML of the message, names of attachments."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from swiftcore.data.documents.decoding import decode_text
from swiftcore.data.documents.html_pages import html_tree, visible_text
from swiftcore.data.documents.outcomes import ExtractionLimits, Reading

_HEADERS = ("Subject", "From", "To", "Date")


def read_eml(raw: bytes, limits: ExtractionLimits) -> Reading:
    """Return a message as text; attachments are named, not read."""
    message = message_from_bytes(raw, policy=policy.default)
    head = [f"{name}: {_header(message, name)}" for name in _HEADERS if name in message]
    sections = [("head", "\n".join(head))] if head else []
    body = message.get_body(preferencelist=("plain", "html"))
    if isinstance(body, EmailMessage):
        sections.append(("body", _body_text(body)))
    attached = [part.get_filename() or part.get_content_type() for part in _attachments(message)]
    notes = [f"attachments were not read: {', '.join(attached)}"] if attached else []
    if attached:
        sections.append(("attachments", f"Attachments: {', '.join(attached)}"))
    return Reading(sections, notes)


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message[name])
    # The standard parser of addresses and dates stumbles over broken ones in many ways.
    except Exception:
        value = next(value for key, value in message.raw_items() if key.lower() == name.lower())
    return " ".join(value.split())


def _body_text(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    text, _ = decode_text(raw, part.get_content_charset())
    if part.get_content_subtype() == "html":
        return visible_text(html_tree(text))
    return text.replace("\r\n", "\n")


def _attachments(message: EmailMessage) -> list[EmailMessage]:
    if not message.is_multipart():
        return []
    return [part for part in message.iter_attachments() if isinstance(part, EmailMessage)]
