//! What other programs' packet filters do with forwarded packets. A container engine sets the policy of `FORWARD` to `DROP`,
//! some distributions end it with a `REJECT` of everything: pods of other nodes are then "no route to host".
//!
//! An accept in a table of our own cannot undo a drop in another one, so the pods get a chain of their own, which `FORWARD`
//! asks first; only on hosts where something there would drop everything. No other rule is touched.

use ipnet::IpNet;

/// The chain of ours in the table `filter`.
pub const CHAIN: &str = "SEALIFT-FORWARD";
const FORWARD: &str = "FORWARD";

/// The arguments of `iptables` that list the table.
pub const LIST: [&str; 3] = ["-w", "5", "-S"];

/// What of the listing concerns forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Why whatever is not accepted explicitly is dropped; `None` if it is not.
    pub closed: Option<String>,
    /// Whether our chain exists.
    chain: bool,
    /// The rules in it.
    rules: Vec<String>,
    /// Places of jumps to it among the rules of `FORWARD`.
    jumps: Vec<usize>,
    /// Place of the first rule that drops everything.
    wall: Option<usize>,
}

impl Filter {
    /// Reads the output of `iptables -S`.
    pub fn parse(listing: &str) -> Self {
        let mut found = Self::default();
        let mut place = 0;
        for line in listing.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["-P", FORWARD, "DROP"] => found.closed = Some("the policy of chain `FORWARD` is DROP".to_owned()),
                ["-N", CHAIN] => found.chain = true,
                ["-A", CHAIN, rule @ ..] => found.rules.push(rule.join(" ")),
                ["-A", FORWARD, "-j", target, ..] => {
                    match *target {
                        CHAIN => found.jumps.push(place),
                        "DROP" | "REJECT" if found.wall.is_none() => {
                            found.wall = Some(place);
                            found.closed.get_or_insert(format!("chain `FORWARD` has the rule `{line}`"));
                        }
                        _ => {}
                    }
                    place += 1;
                }
                ["-A", FORWARD, ..] => place += 1,
                _ => {}
            }
        }
        found
    }

    /// Whether pods get through: nothing is closed, or our chain is asked before the wall.
    pub fn lets_pods_pass(&self, pods: IpNet) -> bool {
        self.closed.is_none() || (self.rules == rules(pods) && self.is_asked())
    }

    fn is_asked(&self) -> bool {
        self.jumps.first().is_some_and(|jump| self.wall.is_none_or(|wall| *jump < wall))
    }

    /// The calls of `iptables` that let pods pass, each its arguments.
    pub fn open(&self, pods: IpNet) -> Vec<Vec<String>> {
        if self.lets_pods_pass(pods) {
            return Vec::new();
        }
        let mut calls = Vec::new();
        if !self.chain {
            calls.push(call(&["-N", CHAIN]));
        }
        let wanted = rules(pods);
        if self.rules != wanted {
            if !self.rules.is_empty() {
                calls.push(call(&["-F", CHAIN]));
            }
            calls.extend(wanted.iter().map(|rule| {
                let rule: Vec<&str> = rule.split(' ').collect();
                call(&[&["-A", CHAIN][..], &rule].concat())
            }));
        }
        if !self.is_asked() {
            calls.extend(self.jumps.iter().map(|_| call(&["-D", FORWARD, "-j", CHAIN])));
            calls.push(call(&["-I", FORWARD, "1", "-j", CHAIN]));
        }
        calls
    }

    /// The calls of `iptables` that take our chain away.
    pub fn remove(&self) -> Vec<Vec<String>> {
        let mut calls: Vec<_> = self.jumps.iter().map(|_| call(&["-D", FORWARD, "-j", CHAIN])).collect();
        if self.chain {
            calls.extend([call(&["-F", CHAIN]), call(&["-X", CHAIN])]);
        }
        calls
    }
}

/// As `iptables -S` prints them, without `-A CHAIN`.
fn rules(pods: IpNet) -> Vec<String> {
    vec![format!("-s {pods} -j ACCEPT"), format!("-d {pods} -j ACCEPT")]
}

fn call(arguments: &[&str]) -> Vec<String> {
    ["-w", "5"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
    // As iptables 1.8.9 prints it on a host with a container engine.
    const ENGINE: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER-USER\n\
        -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
    const WALL: &str = "-P FORWARD ACCEPT\n-A FORWARD -i lo -j ACCEPT\n\
        -A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";

    fn pods() -> IpNet {
        "10.244.0.0/16".parse().unwrap()
    }

    fn lines(calls: &[Vec<String>]) -> Vec<String> {
        calls.iter().map(|call| call.join(" ")).collect()
    }

    #[test]
    fn an_open_host_is_left_alone() {
        assert!(Filter::parse(OPEN).open(pods()).is_empty());
        assert!(Filter::parse("").open(pods()).is_empty());
        assert!(Filter::parse(OPEN).remove().is_empty());
    }

    #[test]
    fn pods_pass_where_everything_else_is_dropped() {
        let calls = [
            "-w 5 -N SEALIFT-FORWARD",
            "-w 5 -A SEALIFT-FORWARD -s 10.244.0.0/16 -j ACCEPT",
            "-w 5 -A SEALIFT-FORWARD -d 10.244.0.0/16 -j ACCEPT",
            "-w 5 -I FORWARD 1 -j SEALIFT-FORWARD",
        ];
        for text in [ENGINE, WALL] {
            let found = Filter::parse(text);
            assert!(found.closed.is_some() && !found.lets_pods_pass(pods()), "{text}");
            assert_eq!(lines(&found.open(pods())), calls, "{text}");
        }
        assert!(Filter::parse(WALL).closed.unwrap().contains("REJECT"));
    }

    const OURS: &str = "-N SEALIFT-FORWARD\n-A SEALIFT-FORWARD -s 10.244.0.0/16 -j ACCEPT\n\
        -A SEALIFT-FORWARD -d 10.244.0.0/16 -j ACCEPT\n";

    #[test]
    fn the_chain_is_asked_first_and_taken_away_whole() {
        let good = format!("-A FORWARD -j SEALIFT-FORWARD\n{WALL}{OURS}");
        assert!(Filter::parse(&good).open(pods()).is_empty());
        // Somebody wrote a wall before it, another pod network is wanted.
        let late = format!("{WALL}-A FORWARD -j SEALIFT-FORWARD\n{OURS}");
        let moved = ["-w 5 -D FORWARD -j SEALIFT-FORWARD", "-w 5 -I FORWARD 1 -j SEALIFT-FORWARD"];
        assert_eq!(lines(&Filter::parse(&late).open(pods())), moved);
        let other = Filter::parse(&good).open("10.200.0.0/16".parse().unwrap());
        assert_eq!(lines(&other)[0], "-w 5 -F SEALIFT-FORWARD");
        assert_eq!(
            lines(&Filter::parse(&good).remove()),
            ["-w 5 -D FORWARD -j SEALIFT-FORWARD", "-w 5 -F SEALIFT-FORWARD", "-w 5 -X SEALIFT-FORWARD"]
        );
    }
}
