//! Every crate that could be resolved, on any platform, must be usable under a licence accepted here.

use super::Finding;
use super::metadata::{Metadata, Package};
use crate::spdx;

/// Permissive licences, none of which asks more of a user than to keep a notice.
const ACCEPTED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn check(metadata: &Metadata) -> Vec<Finding> {
    let found = |package: &Package| {
        let what = complaint(package.license.as_deref())?;
        Some(Finding::new(&format!("{} {}", package.name, package.version), 0, what))
    };
    metadata.packages.iter().filter_map(found).collect()
}

fn complaint(licence: Option<&str>) -> Option<String> {
    let Some(licence) = licence else {
        return Some("names no licence".to_owned());
    };
    match spdx::is_satisfied(licence, &ACCEPTED) {
        Ok(true) => None,
        Ok(false) => Some(format!("licence `{licence}` cannot be met by those accepted")),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissive_passes_and_copyleft_unknown_or_none_does_not() {
        for (licence, passes) in [
            (Some("MIT OR Apache-2.0"), true),
            (Some("Apache-2.0 OR GPL-2.0-only"), true),
            (Some("ISC AND (Apache-2.0 OR ISC) AND MIT AND BSD-3-Clause"), true),
            (Some("AGPL-3.0-only"), false),
            (Some("MIT AND MPL-2.0"), false),
            (Some("SSPL"), false),
            (Some("see LICENSE"), false),
            (None, false),
        ] {
            assert_eq!(complaint(licence).is_none(), passes, "{licence:?}");
        }
    }
}
