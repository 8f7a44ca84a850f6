"""What a valid archive is: the private API checks uploads by these rules, and consumers unpack by them.

The standard library's `zipfile` is no validator: it renames `../x`, cuts names at NUL, accepts data before and after
the zip, and builds an object per entry before anyone can count them. So the records are parsed here. A fault raises
`InvalidArchive`, which says what is wrong, with which entry, and what to do; nothing is ever repaired.

    archive     the entries of an accepted archive
    records     the end record and the directory as the bytes have them
    local_headers  what stands before and behind an entry's data
    names       the names that entries may have
    rules       the records that are acceptable
    contents    the decompressed bytes, checked against the directory
    lookup      single files of an archive, found without building all entries
"""

from contract.zip_rules.archive import ArchiveDirectory, ArchiveEntry
from contract.zip_rules.contents import read_entry, read_range, verify_contents
from contract.zip_rules.lookup import ListedFile, find_file, list_files
from contract.zip_rules.names import MAX_DEPTH, find_clash, find_clashes, name_fault, quoted
from contract.zip_rules.records import MAX_ENTRIES, MOST_ENTRIES
from contract.zip_rules.rules import check_archive

__all__ = [
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "MOST_ENTRIES",
    "ArchiveDirectory",
    "ArchiveEntry",
    "ListedFile",
    "check_archive",
    "find_clash",
    "find_clashes",
    "find_file",
    "list_files",
    "name_fault",
    "quoted",
    "read_entry",
    "read_range",
    "verify_contents",
]
