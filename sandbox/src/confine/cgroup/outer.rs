//! Cgroups around others, which hold them to an amount of memory together.

use std::sync::Arc;

use super::hierarchy::{Controller, Hierarchy, Version};
use super::{Cgroup, CgroupLimits, Error, Group, folder};

impl Cgroup {
    /// Makes one that holds others to so many bytes of memory, all of them together. It has no
    /// processes of its own.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] if this user may not limit memory, or the kernel doesn't count the memory
    /// of what lies in a cgroup as that of the cgroup.
    pub fn create_around(name: &str, memory: u64) -> Result<Self, Error> {
        let mut trees = Hierarchy::usable(&[Controller::Memory])?;
        trees.retain(|tree| tree.controllers.contains(&Controller::Memory));
        let limits = CgroupLimits { memory: Some(memory), ..CgroupLimits::default() };
        let made = Self::create_in(trees, &folder(name), &limits)?;
        made.groups.iter().try_for_each(Group::pass_on)?;
        made.set_limits(&limits)?;
        Ok(made)
    }

    /// Makes one as [`create`](Self::create) does, whose memory counts as that of `outer` too.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn create_within(outer: &Arc<Self>, name: &str, limits: &CgroupLimits) -> Result<Self, Error> {
        let mut needs = limits.needs();
        needs.push(Controller::Memory);
        let mut trees = Hierarchy::usable(&needs)?;
        let of_memory = |tree: &&mut Hierarchy| tree.controllers.contains(&Controller::Memory);
        match (trees.iter_mut().find(of_memory), outer.with(Controller::Memory)) {
            (Some(tree), Some(group)) if tree.version == group.version => {
                tree.parent.clone_from(&group.folder);
            }
            _ => return Err(Error::NoCgroup("memory is counted elsewhere than around it".to_owned())),
        }
        let mut made = Self::create_in(trees, &folder(name), limits)?;
        made._outer = Some(Arc::clone(outer));
        made.set_limits(limits)?;
        Ok(made)
    }
}

impl Group {
    /// Has what lies in this one count as part of it, and gives it the controllers.
    fn pass_on(&self) -> Result<(), Error> {
        if self.version == Version::V2 {
            // What was not passed on to this one it cannot pass on, and who needs it is told later.
            let names = ["+memory", "+cpu", "+pids"];
            names.iter().for_each(|name| _ = self.write("cgroup.subtree_control", name));
            return Ok(());
        }
        // Refused where it is so already, and cannot be otherwise.
        let _ = self.write("memory.use_hierarchy", 1);
        match self.read("memory.use_hierarchy") {
            Ok(text) if text.trim() != "1" => {
                Err(Error::NoCgroup("memory of what lies in a cgroup isn't counted as its own".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
