//! Which components of a bundle concern one host: those for its roles and, of OS packages, those for its distribution.

use bundle::Component;

use crate::config::Roles;

/// One host's share of a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// Roles this run installs.
    pub roles: &'a Roles,
    /// The host's distribution as bundles name it: `debian-12`, `el9`.
    pub distribution: &'a str,
}

impl Share<'_> {
    /// Whether a component is needed here.
    pub fn has(&self, component: &Component) -> bool {
        let fits = component.distribution.as_deref().is_none_or(|distribution| distribution == self.distribution);
        fits && component.roles.iter().any(|role| self.roles.contains(*role))
    }
}

#[cfg(test)]
mod tests {
    use bundle::component::{Kind, Role};

    use super::*;

    #[test]
    fn packages_of_another_distribution_are_not_for_this_host() {
        let roles = Roles::new([Role::Worker]);
        let share = Share { roles: &roles, distribution: "debian-12" };
        let mut packages = bundle::fake::component("packages", "1", Kind::Packages, &[Role::Worker]).unwrap();
        assert!(share.has(&packages));
        packages.distribution = Some("debian-12".to_owned());
        assert!(share.has(&packages));
        packages.distribution = Some("el9".to_owned());
        assert!(!share.has(&packages));
        packages.distribution = None;
        packages.roles = vec![Role::Master];
        assert!(!share.has(&packages));
    }
}
