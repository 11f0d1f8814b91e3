#compdef vdsm-cinder
# SPDX-License-Identifier: GPL-2.0-or-later
# zsh completion for vdsm-cinder; use: source <(vdsm-cinder completion zsh)

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

_vdsm_cinder() {
    local command="" args=() i word
    for ((i = 2; i < CURRENT; i++)); do
        case "${words[i]}" in
            @with_value@) ((i++)) ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=${words[i]}; else args+=("${words[i]}"); fi ;;
        esac
    done
    local commands=(
@described@
    )
    case "${words[CURRENT-1]}" in
        @with_value@) _files; return ;;
    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        local of=${command:-_}
        if [[ -n $(_vdsm_cinder_actions "$of") && -n ${args[1]} ]]; then of+=" ${args[1]}"; fi
        compadd -- ${=$(_vdsm_cinder_options "$of")}
        return
    fi
    case "$command" in
        "") _describe command commands ;;
        call)
            if ((${#args} == 0)); then
                compadd -- @verbs@
            elif compset -P 'vmID='; then
                compadd -- ${(f)"$(vdsm-cinder completion ids 2>/dev/null)"}
            elif compset -P '*=@'; then
                _files
            elif [[ ${words[CURRENT]} != *=* ]]; then
                compadd -S = -- ${=$(_vdsm_cinder_params "${args[1]}")}
            fi
            ;;
        pki)
            if ((${#args} == 0)); then
                compadd -- ${=$(_vdsm_cinder_actions pki)}
            elif [[ ${args[1]} == show ]]; then
                _files
            fi
            ;;
        verbs) compadd -- @verbs@ ;;
        disks | doctor) compadd -- ${(f)"$(vdsm-cinder completion names 2>/dev/null)"} ;;
        drive-xml | register-secret) _files ;;
        completion) compadd -- bash zsh ;;
    esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _vdsm_cinder "$@"
else
    compdef _vdsm_cinder vdsm-cinder
fi
