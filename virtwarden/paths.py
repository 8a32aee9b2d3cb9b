# SPDX-License-Identifier: GPL-2.0-or-later
"""The paths that virt-warden uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# As libvirt's virBufferEscapeString does.
_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"},
)


@dataclass(frozen=True)
class Paths:
    """Every place virt-warden reads or writes; tests give their own."""

    policy: Path = Path("/etc/virt-warden/policy.toml")
    policy_dir: Path = Path("/etc/virt-warden/policy.d")
    ledger_copy: Path = Path("/etc/virt-warden/uids")
    schema: Path = Path("/usr/share/virt-warden/schema.json")
    run: Path = Path("/run/virt-warden")
    state: Path = Path("/var/lib/virt-warden")
    wrapper_dir: Path = Path("/usr/lib/virt-warden")
    libvirt_state: Path = Path("/var/lib/libvirt/qemu")
    libvirt_cache: Path = Path("/var/cache/libvirt/qemu")
    libvirt_run: Path = Path("/run/libvirt/qemu")
    tpm_states: Path = Path("/var/lib/libvirt/swtpm")
    tpm_logs: Path = Path("/var/log/swtpm/libvirt/qemu")
    libvirt_config: Path = Path("/etc/libvirt/qemu")
    hooks: Path = Path("/etc/libvirt/hooks")
    daemon_pids: Path = Path("/run")
    apparmor: Path = Path("/etc/apparmor.d")
    selinux_modules: Path = Path("/var/lib/selinux")
    share: Path = Path("/usr/share/virt-warden")
    udev_rules: Path = Path("/run/udev/rules.d")
    block_devices: Path = Path("/sys/block")

    @property
    def found(self) -> Path:
        """The policy's file of the domains that installation found."""
        return self.policy_dir / "00-found-at-installation.toml"

    @property
    def review_due(self) -> Path:
        """It is there while installation has not yet reviewed the domains that were here before."""
        return self.state / "review-due"

    @property
    def policy_cache(self) -> Path:
        """The compiled policy; gone after a reboot."""
        return self.run / "policy.json"

    @property
    def hook_socket(self) -> Path:
        """Where virt-warden.service answers libvirt's hook."""
        return self.run / "hook.sock"

    @property
    def adopt_socket(self) -> Path:
        """Where virt-warden.service gives a starting QEMU the user of its own."""
        return self.run / "adopt.sock"

    @property
    def waiting(self) -> Path:
        """What the wrapper is told of each start of a domain that nobody enrolled."""
        return self.run / "waiting"

    @property
    def tpm_notes(self) -> Path:
        """What swtpm's wrapper is told of each running domain's TPM."""
        return self.run / "tpms"

    @property
    def emulators(self) -> Path:
        """A wrapper for each QEMU that is installed: first on the PATH of libvirt's daemon."""
        return self.wrapper_dir / "bin"

    @property
    def claims(self) -> Path:
        """Which running domain uses which file."""
        return self.run / "claims"

    @property
    def filters(self) -> Path:
        """Each tap's filter, and its running domain."""
        return self.run / "filters"

    @property
    def drops(self) -> Path:
        """How many frames of each NIC were dropped since the host booted."""
        return self.run / "drops"

    @property
    def libvirt_driver(self) -> Path:
        """The pid of the daemon that runs QEMU's domains, locked by it while it lives."""
        return self.libvirt_run / "driver.pid"

    @property
    def console_socket(self) -> Path:
        """The console service's socket, where operators ask for console tickets."""
        return self.run / "console.sock"

    @property
    def console_attempts(self) -> Path:
        """The recent failed logins of operators."""
        return self.run / "console-attempts"

    @property
    def console_tickets(self) -> Path:
        """The latest console ticket of each domain."""
        return self.run / "tickets"

    @property
    def console_requests(self) -> Path:
        """A directory for each request for a console that lasts."""
        return self.run / "console-requests"

    @property
    def bridges(self) -> Path:
        """Which bridges learn fewer addresses, and for which running domains."""
        return self.run / "bridges"

    @property
    def gate(self) -> Path:
        """For which running domains the gate is up."""
        return self.run / "gate"

    @property
    def reach(self) -> Path:
        """What each running domain's user may send from this host."""
        return self.run / "reach"

    @property
    def ports(self) -> Path:
        """Who may reach the console ports of each running domain."""
        return self.run / "ports"

    @property
    def watched(self) -> Path:
        """Locked by virt-warden.service while it watches the rules."""
        return self.run / "watched"

    @property
    def notices(self) -> Path:
        """Where virt-warden.service hears of events that notify.d is run for; log.py has it too."""
        return self.run / "notices.sock"

    @property
    def notify(self) -> Path:
        """The programs that are run for each event that is a warning or worse."""
        return self.policy_dir.parent / "notify.d"

    @property
    def arriving(self) -> Path:
        """Which domains arrive by a migration."""
        return self.run / "arriving"

    @property
    def libvirts_user(self) -> Path:
        """The uid that libvirt's own directories belonged to before they were given to root."""
        return self.run / "libvirts-user"

    @property
    def turns(self) -> Path:
        """Which domains start just now."""
        return self.run / "turns"

    @property
    def ledger(self) -> Path:
        """Every uid that was ever given to a VM; `ledger_copy` has the same, with a checksum."""
        return self.state / "uids"

    @property
    def written(self) -> Path:
        """Every image that a VM's user could ever write."""
        return self.state / "written"

    @property
    def hook_record(self) -> Path:
        """Where our hook was installed, and its content."""
        return self.state / "hook.json"

    @property
    def farewell(self) -> Path:
        """What is left when virt-warden is removed while domains run under it."""
        return self.state / "farewell"

    @property
    def apparmor_lines(self) -> Path:
        """The lines for AppArmor's local files, named as these."""
        return self.share / "apparmor"

    @property
    def boot_files(self) -> Path:
        """A directory for each running domain that boots a kernel of the host: its copies."""
        return self.state / "boot"

    @property
    def shared(self) -> Path:
        """Owner and mode of shared files before the first of their domains started."""
        return self.state / "shared"

    @property
    def luks(self) -> Path:
        """When each LUKS container was last closed."""
        return self.state / "luks"

    @property
    def console_ca(self) -> Path:
        """The console CA."""
        return self.state / "console-ca"

    def cell(self, uuid: str) -> Path:
        """What a running domain's wrapper and QEMU read; gone after a reboot."""
        return self.run / uuid

    def adoption_plan(self, uuid: str) -> Path:
        """What is due when a start that nobody enrolled is adopted."""
        return self.cell(uuid) / "adoption.json"

    def qemu_pid(self, name: str) -> Path:
        """Where libvirt writes the pid of a domain's QEMU; it escapes the name as in XML."""
        return self.libvirt_run / f"{name.translate(_ESCAPED)}.pid"

    def tpm_pid(self, short_name: str) -> Path:
        """Where libvirt writes the pid of a domain's swtpm."""
        return self.libvirt_run / "swtpm" / f"{short_name.translate(_ESCAPED)}-swtpm.pid"

    def managed_save(self, name: str) -> Path:
        """Where `virsh managedsave` puts a domain's memory, until it starts."""
        return self.libvirt_state / "save" / f"{name}.save"

    def domain_state(self, uuid: str) -> Path:
        """A domain's journals."""
        return self.state / "domains" / uuid
