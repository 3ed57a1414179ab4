"""docs/stack.md is what the templates say. `make deploy-files` writes it."""

import os
import unittest

from support import DOCS, ROOT
from test_cloudformation import TEMPLATES, template

PAGE = DOCS / "stack.md"

HEAD = """# The stacks: parameters and outputs

Of the CloudFormation templates under [deploy/](../deploy). [deployment.md](deployment.md) says when which is used. Written by
`make deploy-files`.
"""


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def default_of(parameter):
    if "Default" not in parameter:
        return "required"
    return f"`{parameter['Default']}`" if parameter["Default"] != "" else "empty"


def meaning(parameter):
    """Its description, with the values that it can have."""
    one_of = parameter.get("AllowedValues")
    values = f" One of {', '.join(f'`{value}`' for value in one_of)}." if one_of else ""
    if "MinValue" in parameter:
        values = f" From {parameter['MinValue']} to {parameter['MaxValue']}."
    text = cell(parameter["Description"])
    return text + ("" if text.endswith(".") else ".") + values


def in_order(template):
    """The parameters, group by group as the console shows them."""
    for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        for name in group["Parameters"]:
            yield group["Label"]["default"], name, template["Parameters"][name]


def page():
    text = HEAD
    for path in TEMPLATES:
        read = template(path)
        name = path.relative_to(ROOT).as_posix()
        text += f"\n## {path.name}\n\n[{name}](../{name}). {cell(read['Description'])}\n\n"
        text += "| | parameter | default | meaning |\n|---|---|---|---|\n"
        before = None
        for label, parameter, shape in in_order(read):
            text += f"| {label if label != before else ''} | `{parameter}` | {default_of(shape)} | {meaning(shape)} |\n"
            before = label
        text += "\n| output | what it is for |\n|---|---|\n"
        for output, shape in read["Outputs"].items():
            text += f"| `{output}` | {cell(shape['Description'])} |\n"
    return text


class StackPage(unittest.TestCase):
    maxDiff = None

    def test_the_page_is_what_the_templates_say(self):
        if "AUDITLAKE_WRITE_DOCS" in os.environ:
            PAGE.write_text(page())
        self.assertEqual(PAGE.read_text(), page(), "run `make deploy-files`")

    def test_every_parameter_stands_in_a_group(self):
        for path in TEMPLATES:
            read = template(path)
            grouped = [name for _, name, _ in in_order(read)]
            self.assertEqual(sorted(grouped), sorted(read["Parameters"]), path.name)


if __name__ == "__main__":
    unittest.main()
