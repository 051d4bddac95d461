"""Page-ins: what the mirror's threads miss is fetched from home, and some of what lies behind it (DESIGN.md 5)."""

from collections.abc import Callable

from radium.core.addr import PAGE_SIZE, USER_END, page_ceil, page_floor
from radium.core.mapping import PROT_READ, PROT_WRITE
from radium.core.pages import Run, Runs, subtract
from radium.errors import RemoteFault
from radium.linux import userfaultfd, vm
from radium.replay.mirror import Mirror
from radium.replay.outcome import Link

# A first miss brings 64 KiB, each miss where the last one ended doubles that, up to 1 MiB.
FIRST_WINDOW, LAST_WINDOW = 64 << 10, 1 << 20


class PageIns:
    def __init__(self, mirror: Mirror, link: Link) -> None:
        self._mirror = mirror
        self._link = link
        self._window, self._window_end = FIRST_WINDOW, 0

    def serve(self, note: Callable[[int, Run], None]) -> bool:
        """Brings what threads wait for. False: home has nothing at one of the places, and its thread waits on.

        note: is told for which thread (`own_id`) how much is brought.
        """
        is_there = True
        for address, own_id in userfaultfd.faults(self._mirror.uffd):
            page = page_floor(address)
            if page in self._mirror.held:
                self._mirror.wake(page)
                continue
            end = self._ahead(page)
            note(own_id, (page, end))
            is_there &= self._link.fetch(page, end)
        return is_there

    def _ahead(self, page: int) -> int:
        """Up to where the page-in of `page` would like to go."""
        self._window = min(self._window * 2, LAST_WINDOW) if page == self._window_end else FIRST_WINDOW
        area = self._mirror.area_at(page)
        end = min(page + self._window, area.end if area else page + PAGE_SIZE)
        missing = self._missing(page, end)
        self._window_end = missing[0][1] if missing else page + PAGE_SIZE
        return self._window_end

    def bring(self, start: int, end: int) -> None:
        """All pages of [start, end) that home has: what the mirror's threads would miss, and what is moved as a whole."""
        for first, last in self._missing(page_floor(start), page_ceil(end)):
            while first < last:
                upto = min(first + LAST_WINDOW, last)
                self._link.fetch(first, upto)
                first = upto

    def word(self, address: int, nbytes: int = 8) -> int:
        """Of the mirror's memory. Raises RemoteFault."""
        self._reach(address, nbytes, PROT_READ)
        return int.from_bytes(self._mirror.vessel.memory.read(address, nbytes), "little")

    def write(self, address: int, data: bytes) -> None:
        """Into the mirror's memory. Raises RemoteFault."""
        self._reach(address, len(data), PROT_WRITE)
        vm.write(self._mirror.vessel.pid, address, data)

    def _reach(self, address: int, nbytes: int, prot: int) -> None:
        """Brings these bytes: to touch a page that is missing would be to wait for us.

        Raises RemoteFault where home has no page, or the thread itself may not touch it.
        """
        end = address + nbytes
        areas = [area for area in self._mirror.layout if area.start < end and address < area.end]
        is_allowed = end <= USER_END and all(area.prot & prot for area in areas)
        if is_allowed:
            self.bring(address, end)
        if not is_allowed or self._missing(page_floor(address), page_ceil(end)):
            raise RemoteFault("memory that the program cannot touch", where=f"{address:#x}")

    def _missing(self, start: int, end: int) -> Runs:
        return subtract(subtract([(start, end)], self._mirror.present()), self._mirror.fresh.runs)
