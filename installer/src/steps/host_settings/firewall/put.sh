# Written by Sealift for nftables.service: its rules after those of this host, before the ones at the end of a chain that take
# whatever is left.

# What those at the end say: nothing but protocols.
# shellcheck disable=SC2016 # awk's own
end='
    !/^\t\t.* # handle [0-9]+$/ {
        if (/^\t\t/) { at = ""; continued = /,$/ }
        next
    }
    {
        text = $0
        gsub(/"[^"]*"/, "", text)
        count = split(text, words, /[ \t{},]+/)
        known = !continued
        for (i = 1; i <= count; i++)
            if (words[i] !~ /^(counter|packets|bytes|[0-9]+|log|prefix|level|group|emerg|alert|crit|err|warn|notice|info|debug|limit|rate|[0-9]+\/(second|minute|hour|day)|burst|drop|reject|with|(port|net|host|prot|addr)-unreachable|(admin|net|host)-prohibited|no-route|reset|meta|l4proto|nfproto|protocol|pkttype|ipv4|ipv6|ip|ip6|nexthdr|tcp|udp|sctp|icmp|icmpx|icmpv6|ipv6-icmp|type|host|unicast|broadcast|multicast|other|comment|#|handle)?$/)
                known = 0
        if (!known) at = ""
        else if (at == "") at = $NF
        continued = 0
    }
    END { print at }'

# put CHAIN COMMENT RULE...: nothing where it is done already.
put() {
    chain=$1 comment=$2
    shift 2
    # shellcheck disable=SC2086,SC2154 # family, table, name; set below
    rules=$("$nft" -a list chain $chain) || return
    case $rules in *"\"$comment\""*) return ;; esac
    at=$(printf '%s\n' "$rules" | awk "$end")
    for rule; do
        if [ -n "$at" ]; then
            "$nft" insert rule "$chain" position "$at" "$rule" comment "\"$comment\""
        else
            "$nft" add rule "$chain" "$rule" comment "\"$comment\""
        fi
    done
}

