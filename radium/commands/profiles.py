"""radium profiles: list, show and check profiles."""

import argparse

from radium.profiles import library, schema


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its three actions; the chosen one is run by `run`."""
    parser = subparsers.add_parser("profiles", help="the library of profiles")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="name, title and number of splits of each library profile")
    show = actions.add_parser("show", help="print a profile")
    show.add_argument("profile", metavar="NAME", help="a library profile, or a file")
    check = actions.add_parser("check", help="say whether a profile can be used, and if not, why")
    check.add_argument("profile", metavar="FILE", help="a file, or a library profile")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises ProfileError for a profile that is not there or cannot be taken."""
    match args.action:
        case "list":
            _list()
        case "show":
            print(schema.read(library.find(args.profile)), end="")
        case "check":
            profile = library.open_profile(args.profile)
            print(f"{args.profile}: ok, {_count(profile)}")
    return 0


def _list() -> None:
    profiles = [library.open_profile(name) for name in library.names()]
    width = max((len(profile.name) for profile in profiles), default=0)
    for profile in profiles:
        print(f"{profile.name:{width}}  {profile.title} ({_count(profile)})")


def _count(profile: schema.Profile) -> str:
    return f"{len(profile.splits)} split{'s' if len(profile.splits) != 1 else ''}"
