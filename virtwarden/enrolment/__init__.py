# SPDX-License-Identifier: GPL-2.0-or-later
"""What enrolment writes into a domain's XML and takes back: user, emulator, console passwords."""
