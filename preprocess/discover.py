"""Inputs → SourceFile in a stable order, with identity and labels as far as layout and tables say.

In:  files, folders, globs, lists, zip archives, fsspec URLs (inputs.py); a label table; a layout's name.
Out: Discovery: sources sorted by the UTF-8 bytes of their names, and what was left out.

A name (`SourceFile.source`) is relative to its input root. Roots inside other roots are part of them;
where several remain, the root's own name comes first; names that collide get a content suffix. So names
depend on the set of inputs and on what is there, never on the order of arguments or of directory entries.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from preprocess._beside import tables_beside
from preprocess._found import Findings, real_path
from preprocess._naming import Named, give_names, layout_path
from preprocess.errors import UsageError
from preprocess.inputs import find, glob_base
from preprocess.label_groups import merged
from preprocess.label_profiles import LabelSource, Role
from preprocess.labels import LabelTable, RowSet, build, labelled
from preprocess.layouts import AUTO, LAYOUTS, Layout, Place, place, profile_of, select
from preprocess.names import MEMBER_SEPARATOR, stem
from preprocess.packed import Packed, SourceCodec
from preprocess.records import Identity, Label, LabelColumn, SourceFile
from preprocess.tables import is_url, read_table, stack

_TEST = "test"
"""The split that nobody has labels of."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found behind the inputs."""

    sources: Sequence[SourceFile]
    """Sorted by the UTF-8 bytes of `source`, names unique."""
    ignored: int
    """Files in walks that are DICOM neither by name nor by content."""
    layout: str
    """Names of the layouts that sources follow, joined by `+`."""
    labels: LabelTable | None
    """For `labels.join` after the scan, when headers have completed identities."""
    label_columns: tuple[LabelColumn, ...] = ()
    label_rows_unmatched: int = 0
    """Label rows without an image so far; final only after `labels.join`."""
    images_unmatched: int = 0
    """Images without labels so far, where there are labels at all."""
    notes: tuple[str, ...] = ()
    """For people: what was not kept or not opened, or lies otherwise than said; counts only."""
    tables_missing: tuple[str, ...] = ()
    """Names of the label tables that these data sets have, where there is no table at all."""


def discover(inputs: Sequence[str], labels: str | None = None, layout: str = AUTO) -> Discovery:
    """Find every input, name it, and join what layout and tables say of it.

    Args:
        inputs: Paths, globs, `archive.zip::member`, or fsspec URLs.
        labels: A label table; then labels of tables beside the images and in lists are not taken.
        layout: `auto`, or a name from `layouts.LAYOUT_NAMES`.

    Raises:
        UsageError: an input is missing, nothing is found, or a table cannot be joined.
    """
    forced = select(layout)
    if not inputs:
        raise UsageError("no inputs given")
    findings = find(inputs, _content_test())
    ignored = findings.count_ignored()
    named = give_names(findings)
    if not named.files:
        raise UsageError(f"no DICOM found under {', '.join(sorted(inputs))} ({ignored} other files)")
    findings.found = named.files  # those as found are not needed any more, and they are many
    table = build(_label_sources(findings, forced, labels))
    if table:
        table.check_list_rows(named.listed_twice)
    sources, used, shape = _sources(named, forced, table)
    return Discovery(
        sources=sources,
        ignored=ignored,
        layout="+".join(sorted(shape.layouts)),
        labels=table,
        label_columns=table.columns if table else (),
        label_rows_unmatched=table.unmatched(used) if table else 0,
        images_unmatched=sum(not s.labels for s in sources) if table and table.columns else 0,
        notes=(*_notes(findings, table), *shape.notes(forced)),
        tables_missing=() if table else tuple(sorted(shape.tables)),
    )


def contains(inputs: Sequence[str], out: str) -> bool:
    """True if a walk through the inputs would meet what is written under `out`.

    Folders contain what is below them; so do folders that a glob matches, and everything below the fixed
    part of a `**`. A single file contains nothing: OUT may lie beside it.
    """
    return any(_meets(text.removeprefix("file://"), out.removeprefix("file://")) for text in inputs)


def _meets(text: str, out: str) -> bool:
    if is_url(text) or is_url(out):
        return f"{out.rstrip('/')}/".startswith(f"{glob_base(text).rstrip('/')}/")
    if os.path.isdir(text):
        tops = [text]
    elif "**" in text:
        tops = [glob_base(text)]
    else:
        tops = [match for match in glob.glob(text, include_hidden=True) if os.path.isdir(match)]
    below = f"{real_path(out)}/"
    return any(below.startswith(f"{real_path(top)}/") for top in tops)


def inside(inputs: Sequence[str], out: str) -> str | None:
    """The first input that lies in OUT, where it would be removed as nothing that belongs there."""
    above = f"{out.rstrip('/')}/" if is_url(out) else f"{real_path(out.removeprefix('file://'))}/"
    for text in inputs:
        base = glob_base(text.removeprefix("file://").split(MEMBER_SEPARATOR)[0])
        if f"{base if is_url(text) else real_path(base)}/".startswith(above):
            return text
    return None


def source_inside(sources: Sequence[SourceFile], out: str) -> str | None:
    """The first source whose file lies in OUT, a folder, by its path: a list may name such."""
    above = f"{os.path.abspath(out.removeprefix('file://'))}/"
    for source in sources if not is_url(out) else ():
        if not is_url(source.path) and os.path.abspath(source.path).startswith(above):
            return source.source
    return None


def _content_test() -> Callable[[bytes], bool]:
    from preprocess.dicom import looks_like_dicom

    return looks_like_dicom


def _label_sources(findings: Findings, forced: Layout | None, labels: str | None) -> list[LabelSource]:
    """Every table with its part: an explicit --labels leaves the others their identity columns only."""
    only = labels is not None
    beside = tables_beside((found, place(layout_path(found), forced)[1]) for found in findings.found)
    sources = [LabelSource(table, profile_of(table), identity_only=only) for table in beside]
    if findings.lists:
        listed = stack("lists of inputs", findings.lists)
        sources.append(LabelSource(listed, profile_of(listed), Role.LIST, identity_only=only))
    if labels is not None:
        table = read_table(labels)
        sources.append(LabelSource(table, profile_of(table)))
    return sources


@dataclass(slots=True)
class _Shape:
    """How the files of a run lie."""

    layouts: set[str] = field(default_factory=set)
    """Names of the layouts that they follow, or are made to."""
    tables: set[str] = field(default_factory=set)
    """Names of the label tables that come with them."""
    others: Counter[str] = field(default_factory=Counter)
    """How many lie otherwise than the named layout expects, by the layout that they follow."""
    by_name: bool = False
    """Whether such a file's identity was read from its path all the same."""

    def add(self, path: str, forced: Layout | None) -> Place:
        """Count one file; returns what its path says."""
        layout, where = place(path, forced)
        self.layouts.add(layout.name)
        if where.identity.split != _TEST:
            self.tables.update(where.tables)
        if forced is not None and forced.recognise(path) is None:
            self.others[place(path)[0].name] += 1
            self.by_name |= where.identity.image_id is not None
        return where

    def notes(self, forced: Layout | None) -> Iterator[str]:
        """What somebody who named the wrong layout should know, if anything."""
        if forced is None or not self.others:
            return
        names = [layout.name for layout in LAYOUTS if layout.profiles]
        known = [f", {self.others[name]} as in {name}" for name in names if self.others[name]]
        identity = "names of folder and file" if self.by_name else "what the headers say"
        yield (
            f"--layout {forced.name} expects {forced.expects}: {self.others.total()} inputs lie otherwise"
            f"{''.join(known)}; their patient_id and image_id are {identity}"
        )


def _sources(
    named: Named, forced: Layout | None, table: LabelTable | None
) -> tuple[Packed[SourceFile], RowSet, _Shape]:
    """Sources in order, the label rows that found one, and how the sources lie."""
    used, shape = RowSet(), _Shape()
    if table:
        table.repeated.update(_repeated(stem(found.member or found.path) for found in named.files))
    sources: Packed[SourceFile] = Packed(SourceCodec())
    for found in named.files:
        identity = shape.add(layout_path(found), forced).identity
        labels: tuple[Label, ...] = ()
        if table and found.row is not None:
            listed, labels = table.of_list_row(found.row)
            identity = merged(listed, identity)
        source = SourceFile(found.source, found.path, found.member, found.explicit, identity, labels)
        source, match = labelled(table, source, Identity(), None)
        used.update(match.rows)
        sources.append(source)
    return sources, used, shape


def _repeated(names: Iterable[str]) -> set[str]:
    """Those that come more than once."""
    seen: set[str] = set()
    twice: set[str] = set()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice


def _notes(findings: Findings, table: LabelTable | None) -> tuple[str, ...]:
    notes = list(table.notes) if table else []
    if findings.unopened:
        notes.append(f"{findings.unopened} zip archives in folders were not opened: name them to read them")
    return tuple(notes)
