"""The steps that build a component inside TouchDesigner; `builder.py` inserts the data of the component.

This text runs as part of `build_in_td.py`, in TouchDesigner's Python or in the fake of `tests/fakes`.
"""

import os

import td

COMPONENT = {}  # replaced by the component that is to be built


def build(parent, component):
    """Create the component under `parent`. Returns it and a list of names that this TouchDesigner lacks."""
    problems = []
    old = parent.op(component["name"])
    if old is not None:
        old.destroy()
    comp = parent.create(td.baseCOMP, component["name"])
    comp.comment = component["comment"]
    pages = {name: comp.appendCustomPage(name) for name in component["pages"]}
    for row in component["parameters"]:
        add_parameter(pages[row["page"]], row)
    for name, row in component["nodes"].items():
        add_node(comp, name, row)
    for name, row in component["nodes"].items():
        node = comp.op(name)
        for index, source in enumerate(row["inputs"]):
            node.inputConnectors[index].connect(comp.op(source))
        if row["dock"]:
            node.dock = comp.op(row["dock"])
        if row["text"] is not None:
            node.text = row["text"]
        problems += set_parameters(node, row["settings"])
    problems += set_parameters(comp, component["settings"])
    return comp, problems


def add_node(comp, name, row):
    """Create one operator, without the DATs that TouchDesigner docks to it automatically."""
    node = comp.create(getattr(td, row["class"]), name)
    for extra in list(node.docked):
        extra.destroy()
    node.nodeX, node.nodeY, node.nodeWidth, node.nodeHeight = row["tile"]


def add_parameter(page, row):
    """Append one custom parameter to its page."""
    style = row["style"].capitalize()
    append = getattr(page, "append" + style)
    par = append(row["name"], label=row["label"])[0]
    if row["menu"]:
        par.menuNames = [word for word, label in row["menu"]]
        par.menuLabels = [label for word, label in row["menu"]]
    if row["low"] is not None:
        par.min = par.normMin = row["low"]
        par.max = par.normMax = row["high"]
        par.clampMin = par.clampMax = True
    if style != "Pulse":
        default = row["default"]
        if style in ("Int", "Toggle"):
            default = int(default)
        par.default = default
        par.val = default
    par.help = row["help"]
    par.startSection = row["section"]
    par.readOnly = row["read_only"]


def set_parameters(node, settings):
    """Set built-in parameters. Returns the names that are missing."""
    missing = []
    for name, (value, expression) in settings.items():
        par = node.par[name]
        if par is None:
            missing.append(node.name + " has no parameter " + name)
        elif expression:
            par.expr = expression
        elif par.isToggle:
            par.val = value == "on"
        elif par.isNumber:
            par.val = float(value)
        else:
            par.val = value
    return missing


def main():
    """Build the component in /project1 (or the root), save it beside the project, and print the result."""
    parent = td.op("/project1") or td.op("/")
    comp, problems = build(parent, COMPONENT)
    path = os.path.join(td.project.folder, COMPONENT["name"] + ".tox")
    comp.save(path)
    comp.par.reinitextensions.pulse()
    print("built " + comp.path + " and saved " + path)
    for problem in problems:
        print("this TouchDesigner differs: " + problem)
    return comp, problems
