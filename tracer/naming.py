"""What an address of the tracee's is called: by symbol, heap, stack, or mapping and offset. For people; costs milliseconds."""

from collections.abc import Sequence

from radium.core.mapping import Mapping
from radium.errors import NotPossible
from radium.tracer.resolve import MappedObject


def place_name(address: int, mappings: Sequence[Mapping], objects: Sequence[MappedObject], rsp: int) -> str:
    """`libx.so.1:table+0x10`, `[heap]+0x2a0`, `[stack] rsp-0x20`, `/lib/data+0x3000`, `an anonymous mapping of 64 KiB +0x10`.

    rsp: of the thread that it is about.
    """
    mapping = next((m for m in mappings if m.start <= address < m.end), None)
    if mapping is None:
        return "no mapping"
    if mapping.start <= rsp < mapping.end:
        return f"{mapping.path or 'a stack'} rsp{address - rsp:+#x}"
    symbol = _symbol_name(address, objects)
    if symbol:
        return symbol
    if mapping.inode:
        return f"{mapping.path}+{mapping.offset + address - mapping.start:#x}"
    name = mapping.path or f"an anonymous mapping of {(mapping.end - mapping.start) >> 10} KiB "
    return f"{name}+{address - mapping.start:#x}"


def _symbol_name(address: int, objects: Sequence[MappedObject]) -> str:
    """The data object there, else the address as the object's file has it; "": it is in none."""
    for one in objects:
        try:
            image = one.image
            inside = any(segment.vaddr <= address - one.base < segment.vaddr + segment.memsz for segment in image.segments)
            if not inside:
                continue
            symbol = image.data_at(address - one.base)
        except NotPossible:
            continue
        if symbol is not None:
            name, value = symbol
            at = address - one.base - value
            return f"{one.title}:{name}" + (f"+{at:#x}" if at else "")
        return f"{one.title}+{address - one.base:#x}"
    return ""
