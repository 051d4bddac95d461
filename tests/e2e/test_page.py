"""The page of a trace, in a real browser."""

import pytest
from browser import CHROMIUM, Browser
from found import candidates, findings

from radium.tracer.discovery.findings import Candidate, Node
from radium.tracer.discovery.page import write

COLORS = {
    "light": {"ready": "rgb(11, 92, 173)", "with-guard": "rgb(134, 191, 238)", "not-yet": "rgb(230, 173, 47)", "no": "rgb(117, 107, 101)"},
    "dark": {"ready": "rgb(61, 143, 230)", "with-guard": "rgb(179, 217, 247)", "not-yet": "rgb(217, 160, 43)", "no": "rgb(121, 114, 109)"},
}  # fmt: skip
FRAMES = """[...document.querySelectorAll("#flame .frame")].map((g) => ({
  name: g.getAttribute("aria-label").split(", ")[0], kind: g.getAttribute("class"), fill: getComputedStyle(g.firstChild).fill,
  width: g.firstChild.getBoundingClientRect().width, x: g.firstChild.getBoundingClientRect().x,
}))"""
ROWS = '[...document.querySelectorAll("tr.row")].map((row) => row.querySelector(".name button").textContent)'
DGEMM = '[...document.querySelectorAll("#flame .frame")].find((g) => g.getAttribute("aria-label").startsWith("libblas.so.3:dgemm_"))'
KMEANS = DGEMM.replace("libblas.so.3:dgemm_", "python:sklearn.cluster._kmeans:KMeans.fit")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.fail("the page was NOT tried: there is no chromium; mend it with: sudo apt-get install chromium")
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.fixture
def shown(browser, tmp_path):
    """shown(findings): the page is open, in a light window of 1200 by 900 pixels; nothing has been complained of at the end."""

    def show(found):
        browser.complaints.clear()
        browser.asked.clear()
        browser.look(1200, 900)
        path = tmp_path / "page.html"
        write(found, path)
        browser.open(path)
        return browser

    yield show
    assert browser.complaints == []
    assert [url for url in browser.asked if not url.startswith(("file:", "data:"))] == []


def frames(browser):
    return {frame["name"]: frame for frame in browser.evaluate(FRAMES)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_flame_graph(shown, scheme):
    """Each frame is there, as wide as its share, in the colour of its verdict; what goes along with a split is tinted."""
    browser = shown(findings())
    browser.look(1200, 900, scheme)
    seen = frames(browser)
    whole = seen["all"]["width"]
    for name, share in (("python:__main__:main", 0.98), ("python:numpy.linalg:solve", 0.105), ("libc.so.6:write", 0.0155)):
        assert seen[name]["width"] == pytest.approx(whole * share, abs=1.5)
    for candidate in candidates():
        kind = candidate.verdict.replace(" ", "-")
        assert seen[candidate.name]["fill"] == COLORS[scheme][kind], candidate.name
    assert len({frame["fill"] for frame in seen.values()}) == 6
    for within in ("python:sklearn.cluster._kmeans:lloyd_iter", "libgomp.so.1:GOMP_parallel"):
        assert seen[within]["kind"] == "frame plain inside"


def test_zoom(shown):
    """A click makes a frame as wide as the page and leaves those above and below it; `Show all` takes that back."""
    browser = shown(findings())
    before = frames(browser)
    browser.click(KMEANS)
    zoomed = frames(browser)
    assert zoomed["python:sklearn.cluster._kmeans:KMeans.fit"]["width"] == pytest.approx(before["all"]["width"], abs=1)
    assert "python:__main__:cluster" in zoomed and "python:__main__:model" not in zoomed
    assert "41" in browser.evaluate('document.getElementById("status").textContent')
    browser.click('document.getElementById("reset")')
    assert frames(browser) == before


def test_keyboard(shown):
    """Arrow keys walk from frame to frame, Enter zooms, Escape shows all."""
    browser = shown(findings())
    before = frames(browser)
    label = 'document.activeElement.getAttribute("aria-label")'
    browser.evaluate('document.querySelector("#flame [tabindex=\'0\']").focus()')
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        browser.press(key)
    assert browser.evaluate(label).startswith("python:__main__:model")
    browser.press("Enter")
    assert frames(browser)["python:__main__:model"]["width"] == pytest.approx(before["all"]["width"], abs=1)
    browser.press("ArrowUp")
    assert browser.evaluate(label).startswith("python:__main__:main")
    browser.press("Escape")
    assert frames(browser) == before


def test_search(shown):
    """What matches stands out, and how much time is in it is told, a frame within a match counted once."""
    browser = shown(findings())
    browser.evaluate('document.getElementById("search").focus()')
    for letter in "dgemm":
        browser.press(letter)
    hits = [frame["name"] for frame in browser.evaluate(FRAMES) if "hit" in frame["kind"]]
    assert hits == ["libblas.so.3:dgemm_", "libblas.so.3:dgemm_"]
    assert browser.evaluate('document.getElementById("status").textContent').startswith("33")


def test_tooltip(shown):
    """The mouse on a frame shows its name, shares, verdict and reason."""
    browser = shown(findings())
    x, y = browser.evaluate(f"(() => {{ const b = {DGEMM}.getBoundingClientRect(); return [b.x + 9, b.y + 9]; }})()")
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = browser.evaluate('document.getElementById("tip").innerText')
    assert "libblas.so.3:dgemm_" in tip and "with guard: small calls lose" in tip and "5.5 ms here, 2.5 ms there" in tip


DOTS = """[...document.querySelectorAll("#scatter .dot")].map((g) => {
  const [x, y] = g.getAttribute("transform").match(/[\\d.]+/g).map(Number);
  return [g.getAttribute("aria-label").split(", ")[0], { x, y, fill: getComputedStyle(g.firstChild).fill }];
})"""
EVEN = 'document.querySelector("#scatter .even").getAttribute("d").slice(1).split("L").map((p) => p.split(",").map(Number))'


@pytest.mark.parametrize("measure", ["bytes", "there"])
def test_scatter(shown, measure):
    """A dot for each tried function, in the colour of its verdict, on its side of the break-even line."""
    browser = shown(findings())
    browser.click(f'document.querySelector("input[value={measure}]")')
    dots = dict(browser.evaluate(DOTS))
    assert set(dots) == {candidate.name for candidate in candidates() if candidate.trial}
    line = browser.evaluate(EVEN)
    link = findings().link
    for candidate in candidates():
        if candidate.trial is None:
            continue
        dot = dots[candidate.name]
        assert dot["fill"] == COLORS["light"][candidate.verdict.replace(" ", "-")]
        way_s = link.rtt_s + (candidate.trial.bytes_out + candidate.trial.bytes_back) / link.bytes_per_s
        gains = candidate.here_s > (way_s if measure == "bytes" else candidate.there_s)
        right = [x for x, y in line if y <= dot["y"]]  # of the line, at the dot's height or above it
        assert gains == (dot["x"] > (min(right) if right else line[-1][0])), candidate.name


def test_sorting(shown):
    """A click on a heading sorts by it, the largest first, the next one turns it round; unknown values stay last."""
    browser = shown(findings())
    ranked = ["KMeans.fit", "dgemm_", "dgetrf_", "deflate", "report", "qsort"]
    assert browser.evaluate(ROWS) == ranked
    head = '[...document.querySelectorAll("th button")].find((b) => b.textContent === "calls")'
    browser.click(head)
    assert browser.evaluate(ROWS) == ["deflate", "dgemm_", "dgetrf_", "KMeans.fit", "report", "qsort"]
    browser.click(head)
    assert browser.evaluate(ROWS) == ["report", "KMeans.fit", "dgetrf_", "dgemm_", "deflate", "qsort"]
    assert browser.evaluate(f"{head}.closest('th').getAttribute('aria-sort')") == "ascending"
    browser.click(head.replace("calls", "#"))
    assert browser.evaluate(ROWS) == ranked


def test_details(shown):
    """A click on a function opens what is known of it, and chooses its dot; a dot opens its function."""
    browser = shown(findings())
    browser.click('document.querySelectorAll("tr.row")[1].querySelector("button")')
    told = browser.evaluate('document.querySelector("tr.details").innerText')
    assert "m[0] * n[0] * k[0] >= 2**21" in told and "python:scipy.linalg:lstsq 1,000" in told and "equal to the program" in told
    assert browser.evaluate('document.querySelector(".dot.chosen").getAttribute("aria-label")').startswith("libblas.so.3:dgemm_")
    browser.click('[...document.querySelectorAll(".dot")].find((g) => g.getAttribute("aria-label").includes("report"))')
    told = browser.evaluate('[...document.querySelectorAll("tr.details")].pop().innerText')
    assert "write 1,200, fsync 3" in told


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (800, "dark"), (380, "light")])
def test_no_width_is_too_small(shown, width, scheme):
    """Whatever the window, nothing of the page lies outside of it: wide tables scroll by themselves."""
    browser = shown(findings())
    browser.look(width, 900, scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate('document.getElementById("flame").getBoundingClientRect().right') <= width
    assert browser.evaluate("Math.max(...[...document.querySelectorAll('#flame .frame')].map((g) => g.getBoundingClientRect().right))") <= width


HOSTILE = [
    "</script><script>document.title = 'broken'</script>", '"><img src=x onerror="document.title = 1">', "<!--", "]]>",
    "</script ", "<!--<script>",
    "$title $data ${data}", "\u2028\u2029", "a\u202eb\x00\x1b[31m", "caf\udce9", "constructor", "__proto__", "&lt;b&gt;",
]  # fmt: skip


def test_hostile_names(shown):
    """Names are text, whatever is in them: nothing is run, nothing is fetched, and each is shown."""
    found = findings(
        program=HOSTILE,
        candidates=[Candidate(name, "", name, 0.1, 0.1, verdict="ready", reason=name, guard=name) for name in HOSTILE],
        tree=Node("all", 1100, [Node(name, 100) for name in HOSTILE]),
        notes=HOSTILE,
    )
    browser = shown(found)
    assert browser.evaluate("document.title").startswith("radium trace: </script>")
    assert browser.evaluate("document.querySelectorAll('img, script:not(#found)').length") == 1
    assert len(browser.evaluate(FRAMES)) == 1 + len(HOSTILE)
    assert {frame["kind"] for frame in browser.evaluate(FRAMES)} == {"frame plain", "frame ready"}
    browser.click('document.querySelector("tr.row button")')
    text = browser.evaluate("document.body.innerText")
    assert "\u202e" not in text and "\x1b" not in text and "a\\u{202e}b" in text and "$title $data ${data}" in text


def test_no_script_but_its_own(shown, tmp_path):
    """The page's policy refuses scripts and styles that were put into it later, and everything from elsewhere."""
    browser = shown(findings())
    browser.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s); })()"
    )
    assert browser.evaluate("document.title").startswith("radium trace")
    assert "Content Security Policy" in browser.complaints.pop()


def test_nothing_found(shown):
    """A program in which nothing was found has a page that says so."""
    browser = shown(findings(candidates=[], tree=Node("all", 0), program=[]))
    assert "Nothing in it is worth a split" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelectorAll('#scatter .dot').length") == 0


def test_large_tree(shown):
    """A tree of thousands of frames, hundreds deep, is shown without those that nobody could see."""
    deep = Node("f", 500)
    for _ in range(400):
        deep = Node("f", 500, [deep])
    wide = [Node(f"g{i}", 1) for i in range(20_000)]
    browser = shown(findings(tree=Node("all", 20_500, [deep, *wide])))
    assert 200 <= browser.evaluate("document.querySelectorAll('#flame .frame').length") < 2000
