"""Checks, inside TouchDesigner, every operator, parameter and menu word that the component relies on.

The component was written without TouchDesigner at hand; this finds every name that the running build lacks. Python 3.11
without packages.
"""


def run(comp, manifest):
    """Check `comp` against the DAT `manifest`. Returns (number of checks, list of faults)."""
    checks, faults = 0, []
    for setting in manifest["component"]:
        checks += 1
        faults += _parameter(comp, setting["name"], "")
    for name in manifest["parameters"]:
        checks += 1
        faults += _parameter(comp, name, "")
    for name, wanted in manifest["operators"].items():
        checks += 1
        node = comp.op(name)
        if node is None:
            faults.append(f"operator {name} is missing")
            continue
        if node.OPType != wanted["class"]:
            faults.append(f"operator {name} is a {node.OPType}, not a {wanted['class']}")
        if len(node.inputs) != wanted["inputs"]:
            faults.append(f"operator {name} has {len(node.inputs)} wires, not {wanted['inputs']}")
        for setting in wanted["settings"]:
            checks += 1
            faults += _parameter(node, setting["name"], setting["word"])
    return checks, faults


def _parameter(node, name, word):
    par = node.par[name]
    if par is None:
        return [f"{node.name} has no parameter {name}"]
    if word and par.isMenu and word not in par.menuNames:
        return [f"{node.name}.{name} has no choice {word}; it has {', '.join(par.menuNames)}"]
    return []


def report(comp, manifest, about):
    """The text of a report, and its first line."""
    checks, faults = run(comp, manifest)
    head = f"{checks} checks, {len(faults)} faults" if faults else f"{checks} checks, no fault"
    lines = [f"Tidecast {manifest['version']} selftest", about, head, *faults]
    return "\n".join(lines) + "\n", head
