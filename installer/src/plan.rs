//! The ordered steps of one host: what comes before the bundle is proven, the store, and everything after.

use crate::config::Roles;
use crate::generation::Switch;
use crate::roles;
use crate::step::Step;
use crate::store::{Program, Store};

/// Gives the steps for some roles: [`Steps::of`], or what a test puts there.
pub type StepsOf<'a> = &'a dyn Fn(&Roles) -> Steps;

/// What the roles of a host ask for, beside the steps that every run has.
pub struct Steps {
    /// Looks at the host and refuses what cannot work; changes nothing.
    pub preflight: Vec<Box<dyn Step>>,
    /// What follows when the bundle is in the store and its generation is current.
    pub rest: Vec<Box<dyn Step>>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.preflight.iter().chain(&self.rest).map(AsRef::as_ref).map(Step::name)).finish()
    }
}

impl Steps {
    /// From the registry of roles.
    pub fn of(roles: &Roles) -> Self {
        Self { preflight: vec![roles::preflight()], rest: roles::steps(roles) }
    }
}

/// The steps of a run, in three parts.
pub struct Plan {
    /// Looks at the host and refuses what cannot work.
    pub preflight: Vec<Box<dyn Step>>,
    /// Verifies and unpacks.
    pub store: Vec<Box<dyn Step>>,
    /// Everything that follows and is journalled.
    pub steps: Vec<Box<dyn Step>>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all().map(Step::name)).finish()
    }
}

impl Plan {
    /// Puts them together.
    pub fn new(asked: Steps, store: Store, program: Program, switch: Switch) -> Self {
        let mut steps: Vec<Box<dyn Step>> = vec![Box::new(program), Box::new(switch)];
        steps.extend(asked.rest);
        Self { preflight: asked.preflight, store: vec![Box::new(store)], steps }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.all().count()
    }

    /// Whether there is no step, which never happens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All steps in order.
    pub fn all(&self) -> impl Iterator<Item = &dyn Step> {
        self.preflight.iter().chain(&self.store).chain(&self.steps).map(AsRef::as_ref)
    }
}
