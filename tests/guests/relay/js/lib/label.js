export const label = "js";
