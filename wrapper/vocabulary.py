# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's words: each option, driver and key that libvirt 9.0 and 11.3 write by themselves.

They are those of the command lines that libvirt's own tests expect of these two versions, without
the drivers that no guard reviews. Any other word comes from <qemu:commandline>.
"""

from __future__ import annotations

from texts import words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from argv import Option

# `OPTION KIND: KEYS;`. The kind is the driver, backend or type; `*` stands for each of the kinds,
# and after a slash comes the key of a nested object.
_TABLE = """
    accel hvf: accel;
    accel kvm: accel dirty-ring-size;
    accel tcg: accel tb-size;
    acpitable: file sig;
    add-fd: fd opaque set;
    audiodev *: driver id in out timer-period;
    audiodev */in: buffer-count buffer-length channels client-name connect-ports dev
        fixed-settings format frequency latency mixing-engine name server-name stream-name
        try-poll voices;
    audiodev */out: buffer-count buffer-length channels client-name connect-ports dev
        fixed-settings format frequency latency mixing-engine name server-name stream-name
        try-poll voices;
    audiodev none: ;
    audiodev alsa: ;
    audiodev coreaudio: ;
    audiodev sdl: ;
    audiodev spice: ;
    audiodev wav: path;
    audiodev jack: ;
    audiodev pa: server;
    audiodev pipewire: ;
    audiodev oss: dsp-policy exclusive try-mmap;
    audiodev dbus: ;
    blockdev *: aio auto-read-only cache detect-zeroes discard driver file node-name read-only;
    blockdev */cache: direct no-flush;
    blockdev copy-on-read: ;
    blockdev file: filename;
    blockdev ftp: url;
    blockdev ftps: password-secret url username;
    blockdev gluster: debug path server volume;
    blockdev gluster/server: host path port type;
    blockdev host_cdrom: filename;
    blockdev host_device: filename pr-manager;
    blockdev http: cookie-secret timeout url;
    blockdev https: cookie-secret password-secret readahead sslverify url username;
    blockdev iscsi: initiator-name lun password-secret portal target transport user;
    blockdev luks: key-secret;
    blockdev nbd: export reconnect-delay server tls-creds tls-hostname;
    blockdev nbd/server: host path port type;
    blockdev nfs: group path server user;
    blockdev nfs/server: host type;
    blockdev nvme: device namespace;
    blockdev qcow2: backing cache-size data-file discard-no-unref encrypt;
    blockdev qcow2/encrypt: format key-secret;
    blockdev raw: offset size;
    blockdev rbd: auth-client-required conf encrypt image key-secret pool server snapshot user;
    blockdev rbd/encrypt: format key-secret parent;
    blockdev rbd/encrypt/parent: format key-secret parent;
    blockdev rbd/encrypt/parent/parent: format key-secret;
    blockdev rbd/server: host port;
    blockdev ssh: path server;
    blockdev ssh/server: host port;
    blockdev throttle: throttle-group;
    blockdev virtio-blk-vhost-vdpa: path;
    blockdev vmdk: backing;
    blockdev vvfat: dir floppy rw;
    blockdev bochs: ;
    blockdev cloop: ;
    blockdev dmg: ;
    blockdev parallels: ;
    blockdev qcow: backing;
    blockdev qed: backing;
    blockdev vdi: ;
    blockdev vpc: ;
    boot: menu once order reboot-timeout splash-time strict;
    chardev dbus: backend id name;
    chardev file: append backend id logappend logfile path;
    chardev null: backend id logappend logfile;
    chardev parallel: backend id logappend logfile path;
    chardev pipe: backend id logappend logfile path;
    chardev pty: backend id logappend logfile;
    chardev qemu-vdagent: backend clipboard id mouse name;
    chardev serial: backend id logappend logfile path;
    chardev socket: backend fd host id logappend logfile path port reconnect reconnect-ms server
        telnet tls-creds wait;
    chardev spiceport: backend id logappend logfile name;
    chardev spicevmc: backend id logappend logfile name;
    chardev stdio: backend id logappend logfile;
    chardev udp: backend host id localaddr localport logappend logfile port;
    chardev vc: backend id logappend logfile;
    compat: deprecated-input deprecated-output;
    drive: aio bus cache copy-on-read discard file format id if index media readonly rerror
        serial unit werror;
    fsdev local: dmode fmode fsdriver id multidevs path readonly security_model writeout;
    fsdev handle: fsdriver id path readonly writeout;
    fw_cfg: file name string;
    m: maxmem size slots;
    machine: accel acpi aes-key-wrap aia cap-ccf-assist cap-cfpc cap-hpt-max-page-size cap-htm
        cap-ibs cap-nested-hv cap-sbbc confidential-guest-support dea-key-wrap dump-guest-core
        gic-version graphics hmat hpet i8042 iommu kernel_irqchip loadparm max-cpu-compat
        mem-merge memory-backend nvdimm pcspk-audiodev pflash0 pflash1 ras resize-hpt
        sgx-epc.N.memdev sgx-epc.N.node smm type usb vmport;
    msg: timestamp;
    name: debug-threads guest process;
    netdev *: id type;
    netdev user: guestfwd ipv6-prefix ipv6-prefixlen net;
    netdev tap: fd fds sndbuf vhost vhostfd vhostfds;
    netdev socket: connect listen localaddr mcast udp;
    netdev stream: addr reconnect-ms server;
    netdev vhost-vdpa: queues vhostdev;
    netdev vhost-user: chardev queues;
    netdev stream/addr: path type;
    netdev user/guestfwd: str;
    numa node: cpus initiator mem memdev nodeid type;
    numa dist: dst src type val;
    numa hmat-lb: bandwidth data-type hierarchy initiator latency target type;
    numa hmat-cache: associativity level line node-id policy size type;
    object *: id qom-type;
    object secret: data file format iv keyid;
    object memory-backend-ram: host-nodes policy reserve size;
    object rng-random: filename;
    object tls-creds-x509: dir endpoint passwordid verify-peer;
    object rng-egd: chardev;
    object memory-backend-file: align discard-data host-nodes mem-path pmem policy prealloc
        prealloc-context prealloc-threads reserve share size
        x-use-canonical-path-for-ramblock-id;
    object iothread: poll-grow poll-max-ns poll-shrink thread-pool-max thread-pool-min;
    object cryptodev-backend-builtin: queues;
    object memory-backend-memfd: host-nodes hugetlb hugetlbsize policy prealloc prealloc-context
        prealloc-threads share size x-use-canonical-path-for-ramblock-id;
    object pr-manager-helper: path;
    object thread-context: node-affinity;
    object input-linux: evdev grab-toggle grab_all repeat;
    object main-loop: thread-pool-max thread-pool-min;
    object s390-pv-guest: ;
    object sev-guest: cbitpos dh-cert-file kernel-hashes policy reduced-phys-bits session-file;
    object sev-snp-guest: author-key-enabled cbitpos guest-visible-workarounds host-data id-auth
        id-block policy reduced-phys-bits vcek-disabled;
    object memory-backend-epc: host-nodes policy prealloc size;
    object throttle-group: limits;
    object rng-builtin: ;
    object throttle-group/limits: bps-read bps-read-max bps-total bps-total-max bps-write
        bps-write-max iops-read iops-read-max iops-size iops-total iops-total-max iops-write
        iops-write-max;
    overcommit: cpu-pm mem-lock;
    rtc: base clock driftfix;
    run-with: async-teardown;
    smbios: asset family location manufacturer product serial sku type uuid value vendor
        version;
    smp: books clusters cores cpus dies drawers maxcpus modules sockets threads;
    spice: addr agent-mouse disable-agent-file-xfer disable-copy-paste disable-ticketing gl
        image-compression jpeg-wan-compression password plaintext-channel playback-compression
        port rendernode sasl seamless-migration streaming-video tls-channel tls-port unix
        x509-dir zlib-glz-wan-compression;
    tpmdev emulator: chardev id type;
    tpmdev passthrough: cancel-path id path type;
    vnc: audiodev password power-control sasl share tls-creds vnc websocket"""

# The models of -device, and the keys of all of them.
_MODELS = words_of("""
    AC97 ES1370 VGA acpi-erst ahci bochs-display ccid-card-emulated ccid-card-passthru
    cirrus-vga diag288 e1000 e1000-82544gc e1000-82545em e1000e floppy hda-duplex hda-micro
    hda-output i6300esb i82550 i82551 i82557a i82557b i82557c i82558a i82558b i82559a i82559b
    i82559c i82559er i82562 i82801 i82801b11-bridge ib700 ich9-intel-hda ich9-usb-ehci1
    ich9-usb-uhci1 ich9-usb-uhci2 ich9-usb-uhci3 ide-cd ide-hd igb intel-hda intel-iommu ioh3420
    isa-debugcon isa-fdc isa-parallel isa-serial ivshmem ivshmem-doorbell ivshmem-plain lan9118
    lsi megasas mptsas1068 ne2k_isa ne2k_pci nec-usb-xhci netfront nvdimm pc-dimm pci-bridge
    pci-ohci pci-serial pcie-pci-bridge pcie-root-port pcnet piix3-usb-uhci pvpanic pvpanic-pci
    pvscsi pxb pxb-pcie qemu-xhci qxl qxl-vga ramfb rtl8139 sb16 sclpconsole sclplmconsole
    scsi-block scsi-cd scsi-generic scsi-hd spapr-pci-host-bridge spapr-tpm-proxy spapr-vlan
    spapr-vscsi spapr-vty tpm-crb tpm-spapr tpm-tis tpm-tis-device tulip usb-audio usb-ccid
    usb-host usb-hub usb-kbd usb-mouse usb-mtp usb-net usb-redir usb-serial usb-storage
    usb-tablet vfio-ap vfio-ccw vfio-pci vfio-pci-nohotplug vhost-scsi-ccw vhost-scsi-pci
    vhost-scsi-pci-non-transitional vhost-scsi-pci-transitional vhost-user-blk-pci
    vhost-user-fs-ccw vhost-user-fs-pci vhost-user-gpu-pci vhost-user-vga vhost-vsock-ccw
    vhost-vsock-pci vhost-vsock-pci-non-transitional vhost-vsock-pci-transitional virtconsole
    virtio-9p-ccw virtio-9p-pci virtio-9p-pci-non-transitional virtio-9p-pci-transitional
    virtio-balloon-ccw virtio-balloon-device virtio-balloon-pci
    virtio-balloon-pci-non-transitional virtio-balloon-pci-transitional virtio-blk-ccw
    virtio-blk-device virtio-blk-pci virtio-blk-pci-non-transitional virtio-blk-pci-transitional
    virtio-crypto-pci virtio-gpu-ccw virtio-gpu-gl-pci virtio-gpu-pci virtio-input-host-pci
    virtio-iommu virtio-keyboard-ccw virtio-keyboard-pci virtio-mem-ccw virtio-mem-pci
    virtio-mouse-ccw virtio-mouse-pci virtio-net-ccw virtio-net-device virtio-net-pci
    virtio-net-pci-non-transitional virtio-net-pci-transitional virtio-pmem-pci virtio-rng-ccw
    virtio-rng-device virtio-rng-pci virtio-rng-pci-non-transitional virtio-rng-pci-transitional
    virtio-scsi-ccw virtio-scsi-pci virtio-scsi-pci-non-transitional
    virtio-scsi-pci-transitional virtio-serial-ccw virtio-serial-device virtio-serial-pci
    virtio-serial-pci-non-transitional virtio-serial-pci-transitional virtio-sound-device
    virtio-sound-pci virtio-tablet-ccw virtio-tablet-pci virtio-vga virtio-vga-gl virtserialport
    vmcoreinfo vmgenid vmxnet3 x3130-upstream xio3130-downstream zpci""")
_DEVICE_KEYS = words_of("""
    acpi-index addr ats audiodev aw-bits backend bios-chs-trans blob block-size bootindex
    bootindexA bus bus_nr caching-mode cad cert1 cert2 cert3 channel chardev chassis chassis_nr
    cmd_per_lun cryptodev csum cyls db deflate-on-oom desc device-iotlb device_id devno
    discard_granularity display dma-translation drive driver dynamic-memslots eim evdev
    event_idx failover failover_pair_id fid filter firstport free-page-reporting fsdev gso guest-cid
    guest-reset guest-resets-all guest_csum guest_ecn guest_tso4 guest_tso6 guest_ufo guid hash
    heads host host-path host_ecn host_mtu host_tso4 host_tso6 host_ufo hostaddr hostbus
    hostdevice hotplug id index intremap iobase ioeventfd iommu_platform ioport iothread
    iothread-vq-mapping irq label-size loadparm logical_block_size lun mac master masterbus
    max-bytes max_outputs max_ports max_sectors mem-reserve memaddr memdev model mount_tag mq
    mrg_rxbuf msi multi multifunction name netdev node nr num-queues num_queues numa_node p2 p3
    packed page-per-vq period physical_block_size port prealloc product queue-size ram_size
    ramfb readonly reg removable requested-size rerror rng rombar romfile rootdir rotation_rate
    rss rx_queue_size scsi scsi-id secs serial share-rw shm size slot streams sysfsdev tag
    target tpmdev tx tx_queue_size uid unarmed unit uuid vectors vendor vgamem vgamem_mb vhostfd
    virgl vqs vram64_size_mb vram_size werror write-cache wwn wwpn xres yres""")
_NESTED = "iothread-vq-mapping"


def _read(table: str) -> Mapping[str, Mapping[str, frozenset[str]]]:
    found: dict[str, dict[str, frozenset[str]]] = {}
    for record in table.split(";"):
        head, _, keys = record.partition(":")
        option, _, kind = head.strip().partition(" ")
        found.setdefault(option, {})[kind] = words_of(keys)
    return found


_KEYS = _read(_TABLE)
_NONE: frozenset[str] = frozenset()


def foreign_words(option: Option) -> Iterator[str]:
    """What in an option's value libvirt does not write; nothing where the option has no keys."""
    if option.name == "device":
        yield from _foreign_to_a_device(option)
    elif option.name in _KEYS:
        kinds = _KEYS[option.name]
        for kind, key in option.parts:
            top, _, below = kind.partition("/")
            common = kinds.get(f"*/{below}" if below else "*", _NONE)
            if top not in kinds or key not in common | kinds.get(kind, _NONE):
                yield f"{kind} {key}".strip()


def _foreign_to_a_device(option: Option) -> Iterator[str]:
    for kind, key in option.parts:
        model, _, below = kind.partition("/")
        if not (model in _MODELS and key in _DEVICE_KEYS and below in ("", _NESTED)):
            yield f"{kind} {key}"
