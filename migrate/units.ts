/** The guest's page, the unit of everything that is counted. */
export const pageBytes = 4096;
