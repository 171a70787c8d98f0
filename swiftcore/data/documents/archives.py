"""Archives (DOCX, PPTX, XLSX, ODT, EPUB) are looked through before a library opens them."""

import io
import re
import zipfile
import zlib

from swiftcore.data.documents.outcomes import DocumentRefused, ExtractionLimits

_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BLOCK_BYTES = 2**16
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm", ".vml")
_DRIVE = re.compile(r"[A-Za-z]:")
_ENTITY = b"<!ENTITY"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError)


def checked_archive(raw: bytes, limits: ExtractionLimits) -> zipfile.ZipFile:
    """Open an archive in memory after a look at every member: names, sizes, checksums, entities.

    Raises:
        DocumentRefused: a name leaves the archive, a member is encrypted, it unpacks to more than
            the limits allow, it is damaged, or its XML declares entities.
    """
    if raw.startswith(_OLD_OFFICE):
        raise DocumentRefused(_old_office(raw))
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
        members = archive.infolist()
        _check_declared(members, len(raw), limits)
        unpacked_bytes = 0
        for member in members:
            unpacked_bytes += _unpacked_size(archive, member, len(raw), limits, unpacked_bytes)
    except _DAMAGE as err:
        if isinstance(err, DocumentRefused):
            raise
        raise DocumentRefused(f"the archive is damaged: {err}") from err
    return archive


def _old_office(raw: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in raw:
        return "encrypted: it opens only with a password"
    return "an old binary Office file under a new name; save it in the new format"


def _check_declared(
    members: list[zipfile.ZipInfo], packed_bytes: int, limits: ExtractionLimits
) -> None:
    if len(members) > limits.max_members:
        raise DocumentRefused(
            f"the archive has {len(members):,} members; {limits.max_members:,} are allowed"
        )
    for member in members:
        parts = re.split(r"[/\\]", member.filename)
        if not parts[0] or ".." in parts or _DRIVE.match(member.filename):
            raise DocumentRefused(
                f"the archive names a member outside itself: {member.filename[:80]!r}"
            )
        if member.flag_bits & 1:
            raise DocumentRefused("encrypted: it opens only with a password")
    _check_size(sum(member.file_size for member in members), packed_bytes, limits)


def _check_size(unpacked_bytes: int, packed_bytes: int, limits: ExtractionLimits) -> None:
    if unpacked_bytes > limits.max_unpacked_bytes:
        raise DocumentRefused(
            f"the archive unpacks to {unpacked_bytes:,} bytes; "
            f"{limits.max_unpacked_bytes:,} are allowed"
        )
    expansion = unpacked_bytes / max(packed_bytes, 1)
    if unpacked_bytes > limits.free_unpacked_bytes and expansion > limits.max_expansion:
        raise DocumentRefused(
            f"the archive unpacks to {expansion:,.0f} times its size; "
            f"{limits.max_expansion} times are allowed"
        )


def _unpacked_size(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    packed_bytes: int,
    limits: ExtractionLimits,
    before_bytes: int,
) -> int:
    """Read one member in blocks, which also checks its checksum, and return its true size."""
    is_markup = member.filename.lower().endswith(_MARKUP)
    size_bytes, tail = 0, b""
    with archive.open(member) as stream:
        while block := stream.read(_BLOCK_BYTES):
            size_bytes += len(block)
            _check_size(before_bytes + size_bytes, packed_bytes, limits)
            if is_markup:
                # Without its zero bytes UTF-16 looks like ASCII.
                seen = tail + block.replace(b"\0", b"")
                if _ENTITY in seen:
                    raise DocumentRefused(f"{member.filename} declares XML entities")
                tail = seen[-len(_ENTITY) :]
    return size_bytes
