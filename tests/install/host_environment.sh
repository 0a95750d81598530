# To be sourced with $prefix set: how programs and scripts find an installed parry that is not in the system's places.
# shellcheck shell=bash
unset PARRY_SHARE
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name parry.pc)")
export PKG_CONFIG_PATH
libdir=$(cd "$(pkg-config --variable=libdir parry)" && pwd)
export LD_LIBRARY_PATH=$libdir
export LUA_CPATH="$libdir/lua/5.4/?.so"
strict=(-g -Wall -Wextra -Wpedantic -Werror)
read -ra cflags <<<"$(pkg-config --cflags parry)"
read -ra shared <<<"$(pkg-config --libs parry)"
# Not `pkg-config --static`: libparry.a itself is static here, the packages it needs stay shared.
read -ra needs <<<"$(pkg-config --print-requires-private parry | paste -sd' ')"
# shellcheck disable=SC2034 # for who sources this
read -ra static <<<"$libdir/libparry.a $(pkg-config --libs "${needs[@]}") -pthread -lm"
