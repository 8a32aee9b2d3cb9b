#!/usr/bin/perl
# /etc/libvirt/hooks/qemu, and hooks/network: the door. virt-warden.service answers libvirt's call,
# or else by_itself.py does the same; virtwarden/service/wire.py tells how hook and service speak.
#
# Perl, which every Debian has: libvirt waits for this three times in each start, and it is done
# before Python would have begun. A module of Perl's takes longer to load than all of this to run, and
# might be anybody's: not even strict is loaded, `make lint` does it.

my $SHARE = '/usr/share/virt-warden';
my $WORK = "$SHARE/by_itself.py";
my $PYTHON = '/usr/bin/python3';
my $LOGGER = '/usr/bin/logger';
my $SERVICE = '/run/virt-warden/hook.sock';
my $SERVICE_UID = 0;
my $OFFER_SECONDS = 2;    # the service needs some milliseconds, on a busy host
my $XML_LIMIT_BYTES = 4 * 1024 * 1024;
my $LONGEST_PART_BYTES = 8 * 1024 * 1024;

# Linux's numbers. A processor for which it has others (MIPS; POWER, the last one) gets no answer by
# these, and its hook does all by itself.
my ($AF_UNIX, $SOCK_STREAM, $SOL_SOCKET, $SO_PEERCRED) = (1, 1, 1, 17);

my ($name, $step) = (@ARGV, '', '');
# What else befalls a network goes by names that steps of domains have too.
exit 0 if $0 =~ m{/hooks/network} && $step ne 'port-created';

$SIG{PIPE} = 'IGNORE';
my $xml = '';
# One byte more than is allowed: that it is too much is for the answer to say.
read STDIN, $xml, $XML_LIMIT_BYTES + 1;
my ($code, $stdout, $stderr) = answer_of_the_service();
by_itself() if !defined $code;
print STDOUT $stdout;
print STDERR $stderr;
exit $code;

# Exit code, stdout and stderr; nothing where there is no answer. Nobody acts in the service's name
# then: it was not told to, or is dead.
sub answer_of_the_service {
    my $socket = eval { offered_in_time() } or return;
    my @answer = eval {
        send_parts($socket, 'take');
        map { receive($socket) } 1 .. 3;
    };
    return @answer if @answer && $answer[0] =~ /\A[01]\z/;
    1 while sysread $socket, my $rest, 65536;    # it may act until it has hung up
    return;
}

# A connection that offers, or nothing. Dies where Perl comes to see the alarm a little late.
sub offered_in_time {
    $SIG{ALRM} = sub { die "no offer in time\n" };
    my $socket = eval {
        alarm $OFFER_SECONDS;
        offer();
    };
    alarm 0;
    $SIG{ALRM} = 'DEFAULT';    # one that waits is seen now, at the latest
    return $socket;
}

# A connection to the service, which has read the call and offers to act on it; dies without one.
sub offer {
    socket my $socket, $AF_UNIX, $SOCK_STREAM, 0 or die;
    connect $socket, pack 'S a* x', $AF_UNIX, $SERVICE or die;
    # struct ucred: pid, uid, gid (unix(7)); of a listener, who called listen(2).
    my (undef, $uid) = unpack 'l L', getsockopt $socket, $SOL_SOCKET, $SO_PEERCRED;
    die if !defined $uid || $uid != $SERVICE_UID;
    send_parts($socket, 'virt-warden 1', join("\0", @ARGV), $xml);
    die if receive($socket) ne 'offer';
    return $socket;
}

sub send_parts {
    my ($socket, @parts) = @_;
    my $left = pack '(N/a*)*', @parts;    # before each, its length in four bytes
    while ($left ne '') {
        my $sent = syswrite $socket, $left or die;
        substr $left, 0, $sent, '';
    }
}

sub receive {
    my ($socket) = @_;
    my $length = unpack 'N', receive_bytes($socket, 4);
    die if $length > $LONGEST_PART_BYTES;
    return receive_bytes($socket, $length);
}

sub receive_bytes {
    my ($socket, $length) = @_;
    my $bytes = '';
    while (length $bytes < $length) {
        sysread $socket, $bytes, $length - length $bytes, length $bytes or die;
    }
    return $bytes;
}

# Goes on as the process that does what the service would have done.
sub by_itself {
    exit 0 if !-d $SHARE;    # virt-warden was removed, this was left
    if (-r $WORK && hand_on_xml()) {
        look_again() if $step eq 'reconnect';
        exec $PYTHON, '-I', $WORK, @ARGV;
    }
    refuse($!);
}

# Has STDIN give the XML once more, and says whether it does.
sub hand_on_xml {
    # A pipe holds less than XML may have: a child of this process writes it.
    my $child = open STDIN, '-|';
    return defined $child if !defined $child || $child != 0;
    # Not by print: Perl would say on stderr what of it nobody read.
    while ($xml ne '' and my $written = syswrite STDOUT, $xml) {
        substr $xml, 0, $written, '';
    }
    exit 0;
}

# Has the promises to a running VM checked. libvirt would end that VM if its hook failed here: whatever
# befalls who checks, killed for want of memory for example, is for the log.
sub look_again {
    system $PYTHON, '-I', $WORK, @ARGV;
    exit 0 if $? == 0;
    my $why = $? == -1 ? $! : "wait status $?";
    my $line = "event=failed domain='" . printable($name) . "' op=$step reason='$WORK: $why'";
    system $LOGGER, '-t', 'virt-warden', '-p', 'authpriv.crit', $line;
    exit 0;
}

# libvirt shows the line to whoever started the domain. Without us, nothing is guarded.
sub refuse {
    my ($why) = @_;
    exit 0 if $step ne 'prepare' && $step ne 'start';
    print STDERR 'virt-warden refuses ' . printable($name) . ": its hook cannot run $WORK ($why);"
        . " to mend: install virt-warden and python3 again, or remove /etc/libvirt/hooks/qemu\n";
    exit 1;
}

sub printable {
    my ($text) = @_;
    $text =~ s/[^ -~]|'/?/g;
    return $text;
}
