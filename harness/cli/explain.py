"""`harness explain NAME`: print the page on a verdict or rule."""

from typing import Annotated

import typer

from harness.cli.output import Json, print_json


def explain(
    rules: Annotated[list[str] | None, typer.Argument(help="Verdicts or rules, as findings name them.")] = None,
    json: Json = False,
) -> None:
    """Explain verdicts and rules: what each says, how it is decided, its causes, and what to try. Without a name, list them."""
    import harness
    from harness.rulebook import names

    pages = [harness.explain(rule) for rule in rules or names()]
    if json:
        print_json({"rules": [rule_page.to_dict() for rule_page in pages]})
    elif rules:
        typer.echo("\n\n".join(map(str, pages)))
    else:
        typer.echo("\n".join(f"{rule_page.name:<34}{rule_page.severity:<7}{rule_page.says}" for rule_page in pages))
