"""What a valid archive is. The API checks uploads by it, the consumer unpacks by it; nothing else parses a zip.

The standard library's `zipfile` is no validator: it renames `../x`, cuts names at NUL, accepts what lies before and
after the zip, and builds an object per entry before anyone can count them. So the records are parsed here. A fault
raises `InvalidArchive`, which says what is wrong, with which entry, and what to do; nothing is ever repaired.

    archive     what was found acceptable
    records     what the bytes say
    names       which names entries may have
    rules       which records are acceptable
    contents    the decompressed bytes, held to what the directory declares
"""

from contract.zip_rules.archive import ArchiveDirectory, ArchiveEntry
from contract.zip_rules.contents import read_entry, verify_contents
from contract.zip_rules.names import MAX_DEPTH, find_clash, name_fault, quoted
from contract.zip_rules.records import MAX_ENTRIES
from contract.zip_rules.rules import check_archive

__all__ = [
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "ArchiveDirectory",
    "ArchiveEntry",
    "check_archive",
    "find_clash",
    "name_fault",
    "quoted",
    "read_entry",
    "verify_contents",
]
