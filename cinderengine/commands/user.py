# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine user: who may log in. An engine that runs need not be told."""

from __future__ import annotations

import argparse

from cinderengine.access import passwords, users
from cinderengine.commands import asking
from cinderengine.commands.transactions import transaction
from cinderengine.config import Config


def add(config: Config, args: argparse.Namespace) -> None:
    """Add a user, whose password is asked for."""
    kept = passwords.hashed(asking.new_password(args.name))
    user = transaction(config, users.add, args.name, kept, administrator=args.administrator)
    print(f"user {user.principal} may log in")


def show(config: Config, args: argparse.Namespace) -> None:
    """List all users."""
    for user in transaction(config, users.everybody):
        role = "administrator" if user.administrator else "user"
        print(f"{user.principal:30}  {role:13}  {'enabled' if user.enabled else 'disabled'}")


def password(config: Config, args: argparse.Namespace) -> None:
    """Give a user another password, which is asked for."""
    transaction(config, users.named, args.name)
    kept = passwords.hashed(asking.new_password(args.name))
    user = transaction(config, users.set_password, args.name, kept)
    print(f"user {user.principal} has another password; whoever was logged in is not any more")


def enable(config: Config, args: argparse.Namespace) -> None:
    """Let a user log in again."""
    user = transaction(config, users.set_enabled, args.name, True)
    print(f"user {user.principal} may log in")


def disable(config: Config, args: argparse.Namespace) -> None:
    """Let a user log in no more."""
    user = transaction(config, users.set_enabled, args.name, False)
    print(f"user {user.principal} may not log in, and is not logged in any more")


def remove(config: Config, args: argparse.Namespace) -> None:
    """Remove a user."""
    user = transaction(config, users.remove, args.name)
    print(f"user {user.principal} is removed")
