//! The before-images: files, sysctls and units as they were before Sealift changed them.

use anyhow::{Result, bail};

use super::{Reset, places, units};
use crate::context::{ETC, HOME, STATE};
use crate::step::Target;

impl Reset<'_> {
    /// Puts everything back that the journal knows. One target that cannot be put back does not keep the others.
    pub(super) fn undo(&mut self) -> Result<Vec<String>> {
        let config = self.survey.config.as_ref().map_or("", |config| config.text.as_str());
        let places = places::of(config);
        // What goes as a whole is no matter of single files.
        let own = |target: &Target| match target {
            Target::File(path) => {
                [HOME, ETC, STATE].iter().any(|home| path.starts_with(home))
                    || places.iter().any(|place| place.path == *path)
            }
            _ => false,
        };
        let is_file = |target: &Target| matches!(target, Target::File(_));
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        if let Some(journal) = &self.journal {
            let mut restore = |wanted: &dyn Fn(&Target) -> bool| {
                for (target, image) in journal.images().filter(|(target, _)| wanted(target) && !own(target)) {
                    let differs = image.differs(self.host, target);
                    let swept = match target {
                        Target::File(path) => self.host.sweep_beside(path),
                        _ => Ok(()),
                    };
                    match swept.and_then(|()| image.restore(self.host, target)) {
                        Ok(Some(left)) => self.left.push(left),
                        Ok(None) if differs => done.push(format!("put {target} back")),
                        Ok(None) => {}
                        Err(error) => failed.push(format!("{target}: {error:#}")),
                    }
                }
            };
            restore(&is_file);
            units::forget(self.host, &self.survey.units, Some(journal))?;
            // A unit that was somebody else's can only be started with its own file again.
            restore(&|target| !is_file(target));
        } else {
            units::forget(self.host, &self.survey.units, None)?;
        }
        if !failed.is_empty() {
            bail!("not put back: {}", failed.join("; "));
        }
        Ok(done)
    }
}
