"""`swift args`: every documented argument, its default, and whether it works."""

from collections.abc import Sequence
from dataclasses import asdict

from swiftcore.cli.options import Parser, add_json, print_json
from swiftcore.cli.tables import print_table
from swiftcore.recipe.arguments import list_arguments


def main(argv: Sequence[str]) -> int:
    """List the arguments, all or those whose name or group holds a word."""
    parser = Parser("swift args", "List every argument and whether it works.")
    parser.add_argument("word", nargs="?", default="", help="part of a name or of a group")
    parser.add_argument("--works", action="store_true", help="only those that work")
    add_json(parser)
    options = parser.parse_args(argv[1:])
    word = options.word.lower()
    found = [
        argument
        for argument in list_arguments()
        if (word in argument.name.lower() or word in argument.group.lower())
        and (argument.status == "works" or not options.works)
    ]
    if options.json:
        print_json([asdict(argument) for argument in found])
        return 0
    print_table(
        ["argument", "group", "type", "default", "status"],
        [[a.name, a.group, a.type, str(a.default), a.status] for a in found],
    )
    working = sum(a.status == "works" for a in found)
    print(f"{len(found)} arguments, {working} work.")
    return 0
