//! The routes in parts: what walks all of them is one test per part, so that none takes minutes.

/// Some of the routes: those for which this prefix is the longest match among all parts. Every route is in one part.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub all: &'static [&'static str],
    pub prefix: &'static str,
}

impl Part {
    pub fn has(&self, path: &str) -> bool {
        let longest = self.all.iter().filter(|prefix| path.starts_with(**prefix)).max_by_key(|prefix| prefix.len());
        longest == Some(&self.prefix)
    }
}

/// Makes one test per part of a function.
#[macro_export]
macro_rules! for_each_part {
    ($walk:path) => {
        $crate::for_each_part! { $walk:
            accounts "/api/auth/";
            browser_logins "/api/auth/browser/";
            addresses "/api/address-pools";
            alerts "/api/alert";
            server_alert_rules "/api/server/{id}/alert-rules";
            tariff_alert_rules "/api/tariffs/{id}/alert-rules";
            hosts "/api/hosts";
            one_host "/api/hosts/{id}";
            images "/api/images";
            operations "/api/operations";
            orders "/api/server/create";
            servers "/api/server";
            server_actions "/api/server/{id}/";
            snapshots "/api/server/{id}/snapshots";
            members "/api/accounts";
            ssh_keys "/api/ssh-keys";
            tariffs "/api/tariffs";
            users "/api/users";
            other_routes "/";
        }
    };
    ($walk:path: $($name:ident $prefix:literal;)*) => {
        const PARTS: &[&str] = &[$($prefix),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $walk($crate::parts::Part { all: PARTS, prefix: $prefix }).await;
            }
        )*
    };
}
