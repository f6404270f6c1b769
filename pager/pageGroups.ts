/** Pages that are hinted together. */

export const pageBytes = 4096;
/** The destination holds no more of each group than some pages next to each other. */
export const groupPages = 16;
