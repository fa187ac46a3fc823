//! The routes in parts: what walks all of them is a test for each part, and none takes minutes.

/// Some of the routes: those whose longest prefix among all parts' is this one's. Every route is in one part.
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

/// Makes a test of a function, for each part.
macro_rules! for_each_part {
    ($walk:path) => {
        for_each_part! { $walk:
            accounts "/api/auth/";
            addresses "/api/address-pools";
            alerts "/api/alert";
            alerts_of_servers "/api/server/{id}/alert-rules";
            alerts_of_tariffs "/api/tariffs/{id}/alert-rules";
            hosts "/api/hosts";
            images "/api/images";
            operations "/api/operations";
            orders "/api/server/create";
            servers "/api/server";
            what_is_done_to_servers "/api/server/{id}/";
            snapshots "/api/server/{id}/snapshots";
            ssh_keys "/api/ssh-keys";
            tariffs "/api/tariffs";
            all_the_rest "/";
        }
    };
    ($walk:path: $($name:ident $prefix:literal;)*) => {
        const PARTS: &[&str] = &[$($prefix),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $walk($crate::support::parts::Part { all: PARTS, prefix: $prefix }).await;
            }
        )*
    };
}
