"""Every configuration file of the repository is read by the binary, and so is every example of one in the documentation."""

import re
import tomllib
import unittest

from support import DOCS, ROOT, auditlake


def configurations():
    found = [*(ROOT / "config").rglob("*.toml"), *(ROOT / "deploy").rglob("*.toml")]
    assert len(found) >= 6, found
    return sorted(found)


def examples():
    """Blocks of TOML in what people read."""
    for path in sorted([ROOT / "README.md", *DOCS.glob("*.md")]):
        for block in re.findall(r"^```toml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            yield path, block


class Configurations(unittest.TestCase):
    def test_each_file_is_read(self):
        for path in configurations():
            with self.subTest(path.relative_to(ROOT)):
                auditlake("config", "--config", path)

    def test_no_two_samples_share_an_archive_or_a_state(self):
        samples = [tomllib.loads(path.read_text()) for path in sorted((ROOT / "config").glob("*.toml"))]
        for part in ("archive", "state"):
            chosen = [sample[part][sample[part]["kind"]] for sample in samples]
            places = [[of.get(key) for key in ("path", "bucket", "table_prefix")] for of in chosen]
            self.assertTrue(all(any(place) for place in places), places)
            self.assertEqual(len(places), len(set(map(tuple, places))), places)

    def test_each_example_is_read(self):
        for path, text in examples():
            with self.subTest(path.name):
                # An example shows a part: what is required beside it is given.
                auditlake("config", "--config", "/dev/stdin", input=text, env={
                    "AUDITLAKE__SOURCE__FILE__PATH": "logs", "AUDITLAKE__SOURCE__KINESIS__STREAM": "s",
                    "AUDITLAKE__ARCHIVE__S3__BUCKET": "b"})


if __name__ == "__main__":
    unittest.main()
