//! "Did you mean": the nearest of the names that are known.

/// The candidate nearest to `name`, if it is near enough to be what was meant.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted = plain(name);
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    // A third of the letters may differ: `timout_secs` is still near `timeout_seconds`, `x` is near nothing.
    let allowed = (wanted.chars().count() / 3).max(1);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let near = candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by(|one, other| {
            // Among equally far ones, the one that begins more alike.
            let alike = |candidate: &str| strsim::jaro_winkler(&wanted, &plain(candidate));
            one.0
                .cmp(&other.0)
                .then_with(|| alike(other.1).total_cmp(&alike(one.1)))
        })
        .map(|(_, candidate)| *candidate);
    // A name that was cut short: `timeout` for `timeout_seconds`.
    near.or_else(|| {
        let begins = |candidate: &&&str| wanted.len() >= 4 && plain(candidate).starts_with(&wanted);
        candidates.iter().find(begins).copied()
    })
}

fn plain(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c == '-' || c == ' ' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_or_none() {
        let names = ["timeout_seconds", "template", "template_file", "variables", "x"];
        let table = [
            ("timout_seconds", Some("timeout_seconds")),
            ("timeout-seconds", Some("timeout_seconds")),
            ("timeout_secs", Some("timeout_seconds")),
            ("templte", Some("template")),
            ("templatez", Some("template")),
            ("templatefile", Some("template_file")),
            ("Variables", Some("variables")),
            ("vraiables", Some("variables")),
            ("retries", None),
            ("timeout", Some("timeout_seconds")),
            ("tim", None),
            ("y", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }
}
