//! Checks inside a guest: network, keys, commands.

use std::time::Duration;

use hypervisor::{Error, GuestAddress, GuestPower, StopMode};

use super::wait::within;
use super::{Lab, refused};

/// The new password works for root's account; a different one does not.
pub async fn a_password_is_set_and_works(lab: Lab) {
    let spec = lab.running().await;
    let guest = &spec.guest;
    for password in ["correct horse", "it's:a \"$trange\" one; `reboot`"] {
        lab.driver.set_password(guest, &password.to_owned().into()).await.unwrap();
        // PAM's own helper. It exits with 0 if the password on its stdin, terminated by a NUL, is right.
        let check = async |text: &str| {
            let stdin = format!("{text}\0");
            let argv = ["unix_chkpwd", "root", "nonull"];
            lab.driver.exec(guest, &argv, stdin.as_bytes(), Duration::from_secs(30)).await.unwrap().status
        };
        assert_eq!(check(password).await, 0);
        assert_ne!(check("wrong").await, 0);
    }
    for bad in ["", "two\nlines", "root:x\nroot"] {
        let refusal = lab.driver.set_password(guest, &bad.to_owned().into()).await;
        refused(refusal, |e| matches!(e, Error::Invalid(_)));
    }
}

/// Arguments arrive unchanged, stdin and both outputs are separate, and the exit status is the command's.
pub async fn commands_are_vectors_and_not_shell(lab: Lab) {
    let spec = lab.running().await;
    let hostile = "$(id) ; `id` > /x 'q' \"q\" \\ \u{e9}";
    assert_eq!(lab.heard(&spec.guest, &["printf", "%s", hostile], b"").await.stdout, hostile.as_bytes());
    let input: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let output = lab.heard(&spec.guest, &["cat"], &input).await;
    assert!(output.status == 0 && output.stdout == input, "stdin came back as {} bytes", output.stdout.len());
    let output = lab.heard(&spec.guest, &["sh", "-c", "echo out; echo err >&2; exit 7"], b"").await;
    assert_eq!((output.status, output.stdout, output.stderr), (7, b"out\n".to_vec(), b"err\n".to_vec()));
    // A command that never reads its stdin still ends.
    let output = lab.driver.exec(&spec.guest, &["true"], &input, Duration::from_secs(30)).await.unwrap();
    assert_eq!(output.status, 0);
    let missing = lab.driver.exec(&spec.guest, &["innkeeper-no-such-program"], b"", Duration::from_secs(30)).await;
    assert!(
        matches!(&missing, Err(Error::NotFound(_))) || missing.as_ref().is_ok_and(|o| o.status == 127),
        "{missing:?}"
    );
    refused(lab.driver.exec(&spec.guest, &[], b"", Duration::from_secs(1)).await, |e| matches!(e, Error::Invalid(_)));
}

/// A command that takes too long is abandoned and killed.
pub async fn commands_end_in_time(lab: Lab) {
    let spec = lab.running().await;
    let slow = lab.driver.exec(&spec.guest, &["sleep", "4242"], b"", Duration::from_secs(1));
    refused(within("a command's time limit", slow).await, |e| matches!(e, Error::GuestHung(_)));
    lab.eventually("the command is gone", async || {
        let found =
            lab.exec(&spec.guest, &["sh", "-c", "grep -las 4242 /proc/[0-9]*/cmdline | grep -v /self/ | wc -l"]).await;
        // Only the shell and the grep themselves have the number on their command lines.
        String::from_utf8_lossy(&found.stdout).trim().parse::<u32>().is_ok_and(|n| n <= 2)
    })
    .await;
}

/// Only 1 MiB of a large output is kept, and the command still ends normally.
pub async fn large_output_is_cut(lab: Lab) {
    let spec = lab.running().await;
    let output = lab.heard(&spec.guest, &["head", "-c", "5000000", "/dev/zero"], b"").await;
    assert_eq!((output.status, output.stdout.len()), (0, 1 << 20));
}

/// A stopped guest has no interfaces, and commands in it are refused.
pub async fn a_stopped_guest_runs_nothing(lab: Lab) {
    let spec = lab.stopped().await;
    assert_eq!(lab.driver.interfaces(&spec.guest).await.unwrap(), Vec::new());
    let second = Duration::from_secs(1);
    refused(lab.driver.exec(&spec.guest, &["true"], b"", second).await, |e| matches!(e, Error::Conflict(_)));
    let refusal = lab.driver.set_password(&spec.guest, &"secret".to_owned().into()).await;
    refused(refusal, |e| matches!(e, Error::Conflict(_)));
}

/// Addresses, name, keys and name servers are as ordered, right after the first start.
pub async fn the_guest_is_what_was_ordered(lab: Lab) {
    let spec = lab.running().await;
    let guest = &spec.guest;
    for GuestAddress { address, .. } in &spec.network.addresses {
        lab.eventually("the address responds", async || lab.rig.answers(*address).await).await;
    }
    let interfaces = lab.driver.interfaces(guest).await.unwrap();
    assert!(interfaces.iter().all(|i| i.name != "lo" && i.mac.len() == 17), "{interfaces:?}");
    let seen: Vec<_> = interfaces.iter().flat_map(|i| &i.addresses).collect();
    assert!(spec.network.addresses.iter().all(|a| seen.contains(&&a.address)), "{seen:?}");
    let foreign = seen.iter().filter(|ip| ip.is_ipv4() && spec.network.addresses.iter().all(|a| a.address != ***ip));
    assert_eq!(foreign.count(), 0, "{seen:?}");
    assert_eq!(lab.output_of(guest, "hostname").await.trim(), spec.hostname);
    assert!(lab.output_of(guest, "getent hosts \"$(hostname)\"").await.contains("127.0.1.1"));
    assert_eq!(lab.output_of(guest, "cat /root/.ssh/authorized_keys").await, spec.ssh_keys.join("\n") + "\n");
    assert_eq!(
        lab.output_of(guest, "stat -c '%a %u %g' /root/.ssh /root/.ssh/authorized_keys").await,
        "700 0 0\n600 0 0\n"
    );
    let servers = lab.output_of(guest, "cat /etc/resolv.conf; resolvectl dns 2>/dev/null || true").await;
    assert!(spec.network.dns.iter().all(|s| servers.contains(&s.to_string())), "{servers}");
    for gateway in spec.network.addresses.iter().filter_map(|a| a.gateway) {
        let family = if gateway.is_ipv4() { "-4" } else { "-6" };
        let routes = lab.output_of(guest, &format!("ip {family} route show default")).await;
        assert!(routes.contains(&format!("via {gateway} ")), "{routes}");
    }
}

/// A guest with an unusual network, or with a link-local gateway, reaches its gateway and what is behind it.
pub async fn a_gateway_may_be_elsewhere_on_the_link(lab: Lab) {
    // These addresses are not on the host's own network, which may be the only one that its filters allow.
    let lab = Lab { driver: lab.rig.without_filters(), ..lab };
    let (mut far, mut near) = (lab.spec().await, lab.spec().await);
    let [_, a, b, c] = u32::try_from(far.guest.vmid).unwrap().to_be_bytes();
    let address = |address: &str, prefix, gateway: Option<&str>| GuestAddress {
        address: address.parse().unwrap(),
        prefix,
        gateway: gateway.map(|via| via.parse().unwrap()),
    };
    // In IPv4 each is the other's gateway.
    let v4 = [18, 19].map(|net| format!("198.{net}.{b}.{c}"));
    let v6 = [1, 2].map(|net| format!("2001:db8:{a}:{net}::{b:x}{c:02x}"));
    let far_addresses = vec![address(&v4[1], 32, Some(&v4[0])), address(&v6[1], 128, None)];
    far.network.addresses = far_addresses;
    lab.run(&far).await;
    lab.eventually("it has a link-local address", async || !lab.link_local(&far).await.is_empty()).await;
    let via = lab.link_local(&far).await;
    let near_addresses = vec![address(&v4[0], 32, Some(&v4[1])), address(&v6[0], 64, Some(&via))];
    near.network.addresses = near_addresses;
    lab.run(&near).await;
    lab.sh(&far.guest, &format!("ip -6 route replace {}/128 dev eth0", v6[0])).await;
    for (family, gateway) in [("-4", &v4[1]), ("-6", &via)] {
        let route = lab.output_of(&near.guest, &format!("ip {family} route show default")).await;
        assert!(route.contains(&format!("via {gateway} ")), "{route}");
    }
    for behind in [&v4[1], &format!("{via}%eth0"), &v6[1]] {
        lab.eventually(&format!("{behind} answers"), async || {
            lab.exec(&near.guest, &["ping", "-c1", "-W1", behind]).await.status == 0
        })
        .await;
    }
}

/// Guests on one bridge can reach each other, in each address family that both have.
pub async fn guests_reach_each_other(lab: Lab) {
    let (one, other) = (lab.running().await, lab.running().await);
    for GuestAddress { address, .. } in &other.network.addresses {
        lab.eventually("the address responds", async || lab.rig.answers(*address).await).await;
        let ping = format!("ping -q -c 1 -W 2 {address} 2>&1");
        lab.eventually(&format!("{address} responds to its neighbour"), async || {
            let argv = ["sh", "-c", ping.as_str()];
            let output = lab.driver.exec(&one.guest, &argv, b"", Duration::from_secs(20)).await;
            output.is_ok_and(|output| output.status == 0)
        })
        .await;
    }
}

/// A guest whose init exits at once is started as requested, is down soon after, and its last output says why.
pub async fn a_guest_that_can_t_boot_leaves_its_last_words(lab: Lab) {
    let spec = lab.running().await;
    let guest = &spec.guest;
    let init =
        "rm /sbin/init && printf '#!/bin/sh\\necho no room for the manager\\n' >/sbin/init && chmod 755 /sbin/init";
    lab.sh(guest, init).await;
    lab.done(lab.driver.stop(guest, StopMode::Force).await).await;
    lab.done(lab.driver.start(guest).await).await;
    lab.eventually("it is down again", async || lab.power(guest).await == Some(GuestPower::Stopped)).await;
    let said = lab.driver.last_words(guest).await.unwrap();
    assert!(said.contains("no room for the manager"), "{said:?}");
}

/// An address that a guest assigns to itself does not work.
pub async fn a_guest_can_t_take_another_s_address(lab: Lab) {
    let spec = lab.running().await;
    let own = spec.network.addresses[0].clone();
    lab.eventually("its own address responds", async || lab.rig.answers(own.address).await).await;
    let other = lab.spec().await.network.addresses[0].address;
    lab.sh(&spec.guest, &format!("ip address add {other}/{} dev eth0", own.prefix)).await;
    // It has the address, and its neighbours hear of it: only then does nothing answer for being kept from it.
    let has = lab.output_of(&spec.guest, "ip -o address show dev eth0").await;
    assert!(has.contains(&format!(" {other}/")), "{has}");
    let gateway = own.gateway.unwrap().to_string();
    let ping = ["ping", "-q", "-c", "2", "-W", "1", "-I", &other.to_string(), &gateway];
    assert_ne!(lab.exec(&spec.guest, &ping).await.status, 0, "{gateway} responds to the guest as {other}");
    assert!(!lab.rig.answers(other).await, "the guest responds at {other}");
    assert!(lab.rig.answers(own.address).await);
}
