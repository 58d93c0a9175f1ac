"""The table that the benchmarks print: figures, their targets, and whether these are met."""

import operator

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SIGNS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


class Table:
    def __init__(self):
        self.figures = []

    def add(self, what, value, form="{:.2f}", target=None, note=""):
        """A figure; its target is a comparison and a number, such as ("<=", 1.5)."""
        met = None if target is None else COMPARE[target[0]](value, target[1])
        self.figures.append({"what": what, "value": value, "shown": form.format(value) + note, "target": target, "met": met, "form": form})

    def value(self, what):
        """The figure of this name, if there is one."""
        return next((figure["value"] for figure in self.figures if figure["what"] == what), None)

    def markdown(self):
        lines = ["| what | figure | target | met |", "|---|---|---|---|"]
        for figure in self.figures:
            target, met = "", ""
            if figure["target"]:
                sign, bound = figure["target"]
                target = f"{SIGNS[sign]} {figure['form'].format(bound)}"
                met = "yes" if figure["met"] else "**no**"
            lines.append(f"| {figure['what']} | {figure['shown']} | {target} | {met} |")
        return "\n".join(lines)

    def missed(self):
        return [figure["what"] for figure in self.figures if figure["met"] is False]
