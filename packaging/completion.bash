# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# bash completion for virt-warden(8)

_virt_warden_domains()
{
    virsh -q -c qemu:///system --readonly list --all --name 2>/dev/null
}

_virt_warden()
{
    local cur prev words cword
    _init_completion || return

    local words_of
    case "$cword:${words[1]}" in
        1:*) words_of="enrol unenrol status explain check graduate audit log pki remote console luks recover policy network package service --help --version" ;;
        2:policy) words_of="check --help" ;;
        2:network) words_of="admit restore drops check render --help" ;;
        2:package) words_of="configure remove --help" ;;
        2:pki) words_of="init server client revoke renew list export --help" ;;
        2:remote) words_of="check setup undo --help" ;;
        2:luks) words_of="status format adopt load --help" ;;
        *:luks)
            words_of="--json --size --force --abort --remove-old --all --help"
            [[ $cur == -* ]] || words_of="$(_virt_warden_domains)"
            ;;
        *:policy) words_of="--help" ;;
        *:package)
            words_of="--help"
            [[ ${words[2]} != configure ]] || words_of="--first --help"
            ;;
        *:network)
            if [[ $prev == --format ]]; then
                words_of="networkd ifupdown netplan"
            elif [[ ${words[2]} == @(admit|drops) && $cur != -* ]]; then
                words_of="$(_virt_warden_domains)"
            else
                words_of="--json --follow --format --help"
            fi
            ;;
        *:remote) words_of="ssh tls sasl --allow --yes --help" ;;
        *:pki)
            case $prev in
                --out | --passphrase-file)
                    _filedir
                    return
                    ;;
            esac
            words_of="consoles remote --json --now --nss --out --passphrase-file --sealed --signer --help"
            [[ ${words[2]} != renew || $cur == -* ]] || words_of="$(_virt_warden_domains)"
            ;;
        *)
            case "${words[1]}" in
                enrol) words_of="--all --xml --console --help" ;;
                graduate) words_of="--all --help" ;;
                unenrol) words_of="--all --xml --help" ;;
                status) words_of="--json --help" ;;
                audit) words_of="--json --html --prometheus --help" ;;
                console) words_of="--out --revoke --serve --help" ;;
                log) words_of="--json --event --help" ;;
                recover) words_of="--ledger --help" ;;
                *) words_of="--help" ;;
            esac
            case $prev in
                --xml | --html | --prometheus | --out)
                    _filedir
                    return
                    ;;
            esac
            [[ $cur == -* || ${words[1]} == audit ]] || words_of="$(_virt_warden_domains)"
            ;;
    esac
    local IFS=$' \n'
    mapfile -t COMPREPLY < <(compgen -W "$words_of" -- "$cur")
} &&
    complete -F _virt_warden virt-warden
