# SPDX-License-Identifier: GPL-2.0-or-later
"""All kinds of changes, by the names that journals use."""

from __future__ import annotations

from virtwarden.changes.access import GrantAccess, SetAccess
from virtwarden.changes.accounts import CreateUser, EndProcesses
from virtwarden.changes.adoption import (
    GiveAllowed,
    GiveMade,
    GiveNodes,
    HideProgram,
    MapIds,
    Regain,
)
from virtwarden.changes.base import Before, Change, Checkable, Scope, values
from virtwarden.changes.bridgeports import SetBridgePort
from virtwarden.changes.cell import IssueCertificate, MakeDirectory, WriteFile
from virtwarden.changes.claims import Claim
from virtwarden.changes.copies import CopyFile
from virtwarden.changes.directories import ClearWay, RequireSocketOf, TakeDirectory
from virtwarden.changes.filters import AdmitTaps, InstallFilters
from virtwarden.changes.luks import NodeRule, OpenLuks
from virtwarden.changes.openers import RequireUnopened
from virtwarden.changes.ports import RestrictPorts
from virtwarden.changes.reach import LimitReach
from virtwarden.changes.shared import LockShared, TakeBack

KINDS: dict[str, type[Change]] = {
    kind.__name__: kind
    for kind in (
        AdmitTaps,
        Claim,
        CopyFile,
        CreateUser,
        EndProcesses,
        GiveAllowed,
        GiveMade,
        GiveNodes,
        GrantAccess,
        HideProgram,
        InstallFilters,
        IssueCertificate,
        LimitReach,
        LockShared,
        MakeDirectory,
        MapIds,
        NodeRule,
        OpenLuks,
        Regain,
        RequireSocketOf,
        RequireUnopened,
        RestrictPorts,
        SetAccess,
        SetBridgePort,
        TakeBack,
        ClearWay,
        TakeDirectory,
        WriteFile,
    )
}

__all__ = [
    "KINDS",
    "AdmitTaps",
    "Before",
    "Change",
    "Checkable",
    "Claim",
    "ClearWay",
    "CopyFile",
    "CreateUser",
    "EndProcesses",
    "GiveAllowed",
    "GiveMade",
    "GiveNodes",
    "GrantAccess",
    "HideProgram",
    "InstallFilters",
    "IssueCertificate",
    "LimitReach",
    "LockShared",
    "MakeDirectory",
    "MapIds",
    "NodeRule",
    "OpenLuks",
    "Regain",
    "RequireSocketOf",
    "RequireUnopened",
    "RestrictPorts",
    "Scope",
    "SetAccess",
    "SetBridgePort",
    "TakeBack",
    "TakeDirectory",
    "WriteFile",
    "values",
]
