"""What the documentation points to is there."""

import re
import unittest

from support import DEPLOY, DOCS, ROOT


def pages():
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")), *sorted(DEPLOY.rglob("*.md"))]


def anchors(path):
    """The headings' names, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Links(unittest.TestCase):
    def test_each_leads_somewhere(self):
        for page in pages():
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                if "://" in target:
                    continue
                with self.subTest(page.name, target=target):
                    name, _, anchor = target.partition("#")
                    path = (page.parent / name).resolve() if name else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(path))


if __name__ == "__main__":
    unittest.main()
