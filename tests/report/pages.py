"""Parse a page strictly."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What stands on a page; complains of what is no valid HTML, or needs another file."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        assert text.startswith("<!DOCTYPE html>")
        self.feed(text)
        assert not self.open
        ids = [attrs["id"] for _, attrs in self.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        for attrs in self.all("img"):
            assert attrs["alt"].strip()
            assert attrs["src"].startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
        for attrs in self.all("a"):
            assert ":" not in attrs["href"]
            assert not attrs["href"].startswith("#") or attrs["href"][1:] in ids
        assert all(attrs["scope"] in ("row", "col") for attrs in self.all("th"))
        assert len(self.all("h1")) == len(self.all("main")) == 1
        assert not {name for name, _ in self.tags} & {"script", "link", "iframe", "object"}
        assert "url(" not in text
        assert "http" not in text

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
