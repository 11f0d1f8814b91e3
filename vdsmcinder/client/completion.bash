# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for vdsm-cinder; use: source <(vdsm-cinder completion bash)

_vdsm_cinder_options() {
    case "$1" in
@options@
    esac
}

_vdsm_cinder_actions() {
    case "$1" in
@actions@
    esac
}

_vdsm_cinder_params() {
    case "$1" in
@params@
    esac
}

_vdsm_cinder_files() {
    compopt -o filenames
    COMPREPLY=($(compgen -f -- "$1"))
}

_vdsm_cinder() {
    # Not COMP_WORDS: bash splits those at '=', ':' and '@' too.
    local line=() typed=${COMP_LINE:0:COMP_POINT}
    read -ra line <<<"$typed"
    if [[ $typed == *[[:space:]] ]]; then line+=(""); fi
    local cur=${line[-1]} previous=${line[-2]} command="" args=() i
    for ((i = 1; i < ${#line[@]} - 1; i++)); do
        case "${line[i]}" in
            @with_value@) ((i++)) ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=${line[i]}; else args+=("${line[i]}"); fi ;;
        esac
    done
    COMPREPLY=()
    case "$previous" in
        @with_value@) _vdsm_cinder_files "$cur"; return ;;
    esac
    if [[ $cur == -* ]]; then
        local of=${command:-_}
        if [[ -n $(_vdsm_cinder_actions "$of") && -n ${args[0]} ]]; then of+=" ${args[0]}"; fi
        COMPREPLY=($(compgen -W "$(_vdsm_cinder_options "$of")" -- "$cur"))
        return
    fi
    case "$command" in
        "") COMPREPLY=($(compgen -W "@commands@" -- "$cur")) ;;
        call)
            if ((${#args[@]} == 0)); then
                COMPREPLY=($(compgen -W "@verbs@" -- "$cur"))
            elif [[ $cur == vmID=* ]]; then
                COMPREPLY=($(compgen -W "$(vdsm-cinder completion ids 2>/dev/null)" -- "${cur#*=}"))
            elif [[ $cur == *=@* ]]; then
                _vdsm_cinder_files "${cur#*=@}"
            elif [[ $cur != *=* ]]; then
                COMPREPLY=($(compgen -S = -W "$(_vdsm_cinder_params "${args[0]}")" -- "$cur"))
                compopt -o nospace
            fi
            ;;
        pki)
            if ((${#args[@]} == 0)); then
                COMPREPLY=($(compgen -W "$(_vdsm_cinder_actions pki)" -- "$cur"))
            elif [[ ${args[0]} == show ]]; then
                _vdsm_cinder_files "$cur"
            fi
            ;;
        verbs) COMPREPLY=($(compgen -W "@verbs@" -- "$cur")) ;;
        disks | doctor)
            local IFS=$'\n'
            COMPREPLY=($(compgen -W "$(vdsm-cinder completion names 2>/dev/null)" -- "$cur"))
            ;;
        drive-xml | register-secret) _vdsm_cinder_files "$cur" ;;
        completion) COMPREPLY=($(compgen -W "bash zsh" -- "$cur")) ;;
    esac
}

complete -F _vdsm_cinder vdsm-cinder
